"""Fixed-point truncation: the first bits of every entry relative to the largest."""

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

__all__ = ["PLANES", "FixedPoint", "bit_planes"]

PLANES = 62
"""Bit planes of a magnitude relative to the largest; what is below them is the exact remainder."""


def bit_planes(v: Tensor) -> tuple[float, Tensor, Tensor]:
    """(m, q, rest): |v_j| = m (q_j + rest_j) 2^−62, q_j integers below 2^62, 0 <= rest_j <= 1.

    m = ‖v‖_∞. An entry of magnitude m has no finite expansion: its bits are all ones and its rest is 1 (A14).
    """
    magnitude = v.double().abs()
    m = float(magnitude.max())
    scaled = magnitude / m * 2.0**PLANES
    q = scaled.to(torch.int64).clamp(max=2**PLANES - 1)
    # The conversion of q back would round; below 2^53 it is exact, above it scaled is an integer itself.
    rest = torch.where(scaled < 2.0**53, scaled - q.double(), (scaled >= 2.0**PLANES).double())
    return m, q, rest


@register("fixed_point", example="fixed_point(level=4)", source="A14; Zukerman, Hamoud, Levy, ICML 2025, section 3.1")
@dataclass(frozen=True)
class FixedPoint(Compressor):
    """C(x)_j = m · sign(x_j) · (the first `level` bits of |x_j| / m), m = ‖x‖_∞, truncated toward zero (A14.1).

    |C(x)_j − x_j| <= m 2^−level; contractive with alpha = (1 − t²) / (1 + (d−1) t²), t = 2^−level, approached by one
    entry m and d − 1 just below m t.
    """

    level: int

    unbiased = False
    random = False

    def __post_init__(self) -> None:
        check_that(1 <= self.level <= 30, self, "level", "a number of bits from 1 to 30 is allowed")

    def omega(self, d: int) -> float:
        return math.inf

    def alpha(self, d: int) -> float:
        t = 4.0**-self.level
        return (1 - t) / (1 + (d - 1) * t)

    def _truncated(self, v: Tensor) -> tuple[Tensor, float]:
        m, q, _ = bit_planes(v)
        return v.sign().to(torch.int64) * (q >> PLANES - self.level), m * 2.0**-self.level

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        symbol, step = self._truncated(v)
        which = symbol.nonzero().squeeze(1)
        return Encoded((Term(All(len(v)).keep(which), Grid(symbol[which], step).rounded(v.dtype, None)),))

    def _variance(self, v: Tensor) -> float:
        symbol, step = self._truncated(v)
        return float((v.double() - symbol.double() * step).square().sum())
