"""Standard dithering: stochastic rounding to s equal levels of a p-norm; and the arithmetic that QSGD and TernGrad
share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.compressors.coding import symbols_term
from telegrad.kernels.quantising.rounding import rounded_to_steps
from telegrad.kernels.statistics.magnitudes import largest_magnitude, sums_of_squares
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term

__all__ = ["Dithering", "dithered", "dithering_omega", "dithering_variance", "p_norm"]


def p_norm(x: Tensor, p: float) -> float:
    """‖x‖_p of a non-zero vector as `checked` leaves it; no power overflows or vanishes on the way."""
    if p == 2.0:
        return math.sqrt(math.fsum(sums_of_squares(x, 65536).tolist()))
    largest = largest_magnitude(x)
    if math.isinf(p):
        return largest
    x = x.double()
    return largest * float(torch.linalg.vector_norm(x / largest, ord=p))


def dithered(v: Tensor, step: float, levels: int, key: Key) -> Term:
    """The term for `v` rounded stochastically to multiples of `step`, no entry more than `levels` of them."""
    steps = torch.tensor([step], dtype=torch.float64)
    term = symbols_term(rounded_to_steps(v, steps, len(v), key, levels), step)
    return Term(term.positions, term.values.rounded(v.dtype, key.fold(role="scale")))


def dithering_variance(x: Tensor, step: float | Tensor) -> float:
    """Σ step² f (1 − f), f the fraction of |x_j| / step (A9.1)."""
    y = x.abs() / step
    fraction = y - y.floor()
    return float((fraction * (1 - fraction) * step * step).sum())


def dithering_omega(d: int, levels: int, p: float) -> float:
    """The constant of s levels of the p-norm; with R = d^(2/min(p,2)) / s²: √R − 1 for R >= 4, else R/4.

    For every μ >= 0, f (1 − f) <= μ y² + 1/(4 (1 + μ)); the sum over entries with Σ y² >= d/R, least over μ, is the
    bound. Equal entries attain √R − 1 for p <= 2. For p = ∞ the largest entry lies on the grid: then
    (√(1 + (d−1)/s²) − 1) / 2, attained by one entry 1 and d − 1 of 1/(s + √(s² + d − 1)); s = 1 is (A10.2).
    """
    if d <= 1:
        return 0.0
    if math.isinf(p):
        return (math.sqrt(1 + (d - 1) / levels**2) - 1) / 2
    ratio = d ** (2 / min(p, 2.0)) / levels**2
    return math.sqrt(ratio) - 1 if ratio >= 4 else ratio / 4


@register(
    "dithering", example="dithering(norm=inf, levels=4)", source="A9; Goodall 1951; Roberts 1962; Horváth et al. 2019"
)
@dataclass(frozen=True)
class Dithering(Unbiased):
    """Standard dithering: stochastic rounding of every entry to s even levels of a p-norm.

    With y_j = s |x_j| / ‖x‖_p for s = `levels`: C(x)_j = ‖x‖_p sign(x_j) (⌊y_j⌋ + Bernoulli(y_j − ⌊y_j⌋)) / s
    (A9.1).

    Unbiased; exact variance (‖x‖_p²/s²) Σ f_j (1 − f_j), f_j the fraction of y_j; `dithering_omega` derives omega and
    says where it is attained. norm=2 is QSGD, norm=inf with one level is TernGrad.

    Args:
        levels: s, the number of levels above zero.
        norm: p from 1 on, or inf.

    References:
        Goodall, "Television by Pulse Code Modulation", 1951, https://doi.org/10.1002/j.1538-7305.1951.tb01365.x
        Horváth et al., "Natural Compression for Distributed Deep Learning", 2019, https://arxiv.org/abs/1905.10988
        Roberts, "Picture Coding Using Pseudo-Random Noise", 1962, https://doi.org/10.1109/TIT.1962.1057702
    """

    levels: int = 4
    norm: float | Literal["inf"] = "inf"

    def __post_init__(self) -> None:
        check_that(1 <= self.levels < 2**31, self, "levels", "a number of levels from 1 is allowed")
        check_that(self.norm == "inf" or self.norm >= 1, self, "norm", "inf or a number from 1 is allowed")

    @property
    def _p(self) -> float:
        return float(self.norm)

    def omega(self, d: int) -> float:
        return dithering_omega(d, self.levels, self._p)

    def on_gpu(self, v: Tensor) -> bool:
        return self._p in (2.0, math.inf)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        return Encoded((dithered(v, p_norm(v, self._p) / self.levels, self.levels, key),))

    def _variance(self, v: Tensor) -> float:
        x = v.double()
        return dithering_variance(x, p_norm(x, self._p) / self.levels)
