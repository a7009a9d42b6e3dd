"""RTN: rounding to nearest on a uniform grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import Grid

__all__ = ["RTN", "round_to_grid"]


def round_to_grid(v: Tensor, level: int) -> tuple[Tensor, float]:
    """(q, δ): the nearest points δ q of the mid-tread grid of `level` bits over [−c, c], c = ‖v‖_∞ (A16.1).

    δ = 2c / (2^level − 1), |q| <= 2^(level−1) − 1; halves go to the even point. Level 1 has the one point 0.
    """
    x = v.double()
    step = 2 * float(x.abs().max()) / (2**level - 1)
    top = 2 ** (level - 1) - 1
    return (x / step).round().clamp(-top, top).to(torch.int64), step


@register(
    "rtn", example="rtn(level=4)", source="A16; Gupta et al. 2015; Zukerman, Hamoud, Levy, ICML 2025, appendix G.2"
)
@dataclass(frozen=True)
class RTN(Compressor):
    """C(x) = δ round(x/δ) clipped to 2^level − 1 points, δ = 2‖x‖_∞ / (2^level − 1): the mid-tread grid (A16.1).

    |C(x)_j − x_j| <= min(|x_j|, δ/2); contractive with alpha = (1 − t²) / (1 + (d−1) t²), t = 1 / (2^level − 1),
    attained by one entry c and d − 1 of magnitude c t.
    """

    level: int

    unbiased = False
    random = False

    def __post_init__(self) -> None:
        check_that(1 <= self.level <= 30, self, "level", "a number of bits from 1 to 30 is allowed")

    def omega(self, d: int) -> float:
        return math.inf

    def alpha(self, d: int) -> float:
        t = (2**self.level - 1) ** -2
        return (1 - t) / (1 + (d - 1) * t)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        symbol, step = round_to_grid(v, self.level)
        which = symbol.nonzero().squeeze(1)
        return Encoded((Term(All(len(v)).keep(which), Grid(symbol[which], step).rounded(v.dtype, None)),))

    def _variance(self, v: Tensor) -> float:
        symbol, step = round_to_grid(v, self.level)
        return float((v.double() - symbol.double() * step).square().sum())
