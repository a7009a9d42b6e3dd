"""QSGD: stochastic rounding to s levels of the norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.kernels.reference import round_to_integer
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import Grid

__all__ = ["QSGD"]


@register("qsgd", example="qsgd(levels=4)", source="A7; Alistarh et al. 2017")
@dataclass(frozen=True)
class QSGD(Compressor):
    """With y_j = s |x_j| / ‖x‖₂ for s = `levels`: C(x)_j = ‖x‖₂ sign(x_j) (⌊y_j⌋ + Bernoulli(y_j − ⌊y_j⌋)) / s (A7.1).

    Unbiased; exact variance (‖x‖²/s²) Σ f_j (1 − f_j), f_j the fraction of y_j; omega = min(d/s², √d/s) (A7.2). Sent:
    the places of the non-zero symbols, their signs, their magnitudes where one exceeds 1, and ‖x‖/s.
    """

    levels: int = 4

    unbiased = True
    random = True

    def __post_init__(self) -> None:
        check_that(1 <= self.levels < 2**31, self, "levels", "a number of levels from 1 is allowed")

    def omega(self, d: int) -> float:
        return min(d / self.levels**2, d**0.5 / self.levels)

    def alpha(self, d: int) -> float:
        return max(0.0, 1 - self.omega(d))

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        x = v.double()
        step = float(torch.linalg.vector_norm(x)) / self.levels
        magnitude = round_to_integer(x.abs() / step, key.uniform(len(v), device=v.device)).to(torch.int64)
        which = magnitude.nonzero().squeeze(1)
        grid = Grid(magnitude[which] * v[which].sign().to(torch.int64), step).rounded(v.dtype, key.fold(role="scale"))
        return Encoded((Term(All(len(v)).keep(which), grid),))

    def _variance(self, v: Tensor) -> float:
        x = v.double()
        step = float(torch.linalg.vector_norm(x)) / self.levels
        y = x.abs() / step
        fraction = y - y.floor()
        return step**2 * float((fraction * (1 - fraction)).sum())
