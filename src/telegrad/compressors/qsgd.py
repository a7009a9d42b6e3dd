"""QSGD: stochastic rounding to s levels of the norm, of the whole vector or of each bucket."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.compressors.dithering import dithered, dithering_omega, dithering_variance, p_norm
from telegrad.kernels.quantising.rounding import rounded_to_steps
from telegrad.kernels.statistics.magnitudes import sums_of_squares
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import Bucketed

__all__ = ["QSGD"]


@register("qsgd", example="qsgd(levels=4)", source="A7; Alistarh et al. 2017")
@dataclass(frozen=True)
class QSGD(Unbiased):
    """QSGD: stochastic rounding of every entry to s levels of the Euclidean norm.

    With y_j = s |x_j| / ‖x‖ for s = `levels`: C(x)_j = ‖x‖ sign(x_j) (⌊y_j⌋ + Bernoulli(y_j − ⌊y_j⌋)) / s (A7.1).

    Unbiased; exact variance (‖x‖²/s²) Σ f_j (1 − f_j), f_j the fraction of y_j. For `norm=l2` omega = √d/s − 1,
    attained by equal magnitudes, where √d >= 2s, else d/(4s²): within (A7.2); for `norm=inf` see `dithering_omega`.
    Sent: the symbols of all entries, entropy coded; where few are not zero, their places, signs and magnitudes;
    and ‖x‖/s.

    Args:
        levels: s, the number of levels above zero.
        norm: l2 or inf.
        bucket: so many neighbouring entries share a norm (512 in the paper); then omega is that of one bucket, every
            symbol is sent, and a scale for each bucket.

    References:
        Alistarh et al., "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding", 2017,
            https://arxiv.org/abs/1610.02132
    """

    levels: int = 4
    norm: Literal["l2", "inf"] = "l2"
    bucket: int | None = None

    def __post_init__(self) -> None:
        check_that(1 <= self.levels < 2**31, self, "levels", "a number of levels from 1 is allowed")
        check_that(self.bucket is None or self.bucket >= 1, self, "bucket", "a number of entries from 1 is allowed")

    @property
    def _p(self) -> float:
        return 2.0 if self.norm == "l2" else math.inf

    def omega(self, d: int) -> float:
        return dithering_omega(min(d, self.bucket or d), self.levels, self._p)

    def on_gpu(self, v: Tensor) -> bool:
        return self.norm == "l2" and v.dtype != torch.float64

    def _steps(self, v: Tensor) -> Tensor:
        """The step of every bucket, float64."""
        bucket = min(self.bucket or len(v), len(v))
        if bucket == len(v):
            return torch.tensor([p_norm(v, self._p) / self.levels], dtype=torch.float64)
        if self.norm == "l2":
            norms = sums_of_squares(v, bucket).sqrt()
            if v.dtype != torch.float64 or bool((norms > 2.0**-400).all()):
                return norms / self.levels
        # Squares of float64 numbers may vanish: those of numbers relative to the largest do not.
        rows = torch.nn.functional.pad(v, (0, -len(v) % bucket)).view(-1, bucket)
        low, high = rows.aminmax(dim=1)
        largest = torch.maximum(-low, high).double()
        if self.norm == "inf":
            return largest / self.levels
        relative = rows / torch.where(largest > 0, largest, 1.0).unsqueeze(1)
        return largest * torch.linalg.vector_norm(relative, dim=1) / self.levels

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        steps = self._steps(v)
        if self.bucket is None:
            return Encoded((dithered(v, float(steps[0]), self.levels, key),))
        # A bucket of zeros has any step: its symbols are zero.
        positive = torch.where(steps > 0, steps, 1.0)
        symbol = rounded_to_steps(v, positive, min(self.bucket, len(v)), key, self.levels)
        values = Bucketed(symbol, steps, self.bucket).rounded(v.dtype, key.fold(role="scale"))
        return Encoded((Term(All(len(v)), values),))

    def _variance(self, v: Tensor) -> float:
        steps = self._steps(v)
        each = torch.where(steps > 0, steps, 1.0).repeat_interleave(min(self.bucket or len(v), len(v)))
        return dithering_variance(v.double().cpu(), each[: len(v)])
