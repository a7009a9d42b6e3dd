"""The gradient noise scale: how large a batch is worth its samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.errors import InputError
from telegrad.theory.ranges import COUNT, check
from telegrad.theory.vectors import flat_vector

__all__ = ["NoiseScale", "noise_scale"]


@dataclass(frozen=True)
class NoiseScale:
    """From gradients of several batches of `batch_size` examples.

    `variance`: tr Cov of one batch's gradient; `signal`: ‖∇f‖², unbiased, may be negative where noise hides it;
    `examples`: the noise scale batch_size · variance / signal in examples, the batch at which noise equals the gradient
    (infinite where the signal is not above 0); `low`, `high`: a 95 % interval by the jackknife over batches;
    `coordinate_scale`: Σσ_j²/Σσ_j, σ_j of one example's gradient: the scale that `telegrad rescale --noise` wants.
    """

    batch_size: int
    batches: int
    variance: float
    signal: float
    examples: float
    low: float
    high: float
    coordinate_scale: float

    def phi(self, workers: int) -> float:
        """The noise of the mean gradient of so many workers over ‖∇f‖²: what `telegrad advise --noise` wants. Raises
        `ConfigError` for fewer than one worker.
        """
        check(workers=(workers, COUNT))
        return self.examples / (self.batch_size * workers)


def noise_scale(gradients: Sequence[Tensor], batch_size: int) -> NoiseScale:
    """The noise scale from flat gradients (d,) of independent batches of `batch_size` examples, at least three.

    variance = Σ‖g_i − ḡ‖²/(n − 1), signal = ‖ḡ‖² − variance/n. Source: McCandlish, Kaplan, Amodei, OpenAI Dota Team,
    "An Empirical Model of Large-Batch Training", 2018. Raises `InputError` for fewer than three gradients, for
    gradients that are no finite tensors, of different lengths or all zero, and for a batch size below 1.
    """
    if not COUNT.fits(batch_size):
        raise InputError(f"batch_size={batch_size}: {COUNT.instead_of(batch_size)} is allowed")
    rows = _rows(gradients)
    n = len(rows)
    gram = rows @ rows.T
    diagonal, total = gram.diagonal(), float(gram.sum())
    whole = _estimate(n, float(diagonal.sum()), total)
    # Leaving out one batch changes both sums by its own row of the Gram matrix.
    without = [
        _ratio(*_estimate(n - 1, float(diagonal.sum() - diagonal[i]), total - float(2 * gram[i].sum() - diagonal[i])))
        for i in range(n)
    ]
    examples = batch_size * _ratio(*whole)
    if examples == 0:  # gradients that are all alike: the interval is a point
        return NoiseScale(batch_size, n, whole[0], whole[1], 0.0, 0.0, 0.0, 0.0)
    # 1/noise scale is close to normal: the signal, its numerator, is what is uncertain.
    inverse = torch.tensor([1 / value if value else math.inf for value in without], dtype=torch.float64)
    error = math.sqrt((n - 1) / n * float((inverse - inverse.mean()).square().sum()))
    centre = whole[1] / whole[0] if whole[0] else math.inf
    low, high = (
        batch_size / value if value > 0 else math.inf for value in (centre + 1.96 * error, centre - 1.96 * error)
    )
    spread = rows.var(dim=0).sqrt()
    scale = float(spread.square().sum() / spread.sum()) * math.sqrt(batch_size) if float(spread.sum()) else 0.0
    return NoiseScale(batch_size, n, whole[0], whole[1], examples, low, high, scale)


def _rows(gradients: Sequence[Tensor]) -> Tensor:
    """(n, d), in float64."""
    if not isinstance(gradients, Sequence):
        raise InputError(f"gradients are of type {type(gradients).__name__}: a list of tensors, one a batch, is wanted")
    flat = [flat_vector(gradient, f"gradient {number}").double() for number, gradient in enumerate(gradients, 1)]
    if len({len(one) for one in flat}) > 1:
        raise InputError("the gradients differ in length: they must be of one model")
    if len(flat) < 3:
        raise InputError(f"{len(flat)} batches: at least three are needed to tell noise from gradient")
    rows = torch.stack(flat)
    if not bool(rows.any()):
        raise InputError("the gradients are empty, or all zero: there is neither noise nor gradient")
    return rows


def _estimate(n: int, squares: float, total: float) -> tuple[float, float]:
    """(variance, signal) from Σ‖g_i‖² and ‖Σg_i‖²."""
    variance = (squares - total / n) / (n - 1)
    return variance, total / n**2 - variance / n


def _ratio(variance: float, signal: float) -> float:
    return variance / signal if signal > 0 else math.inf
