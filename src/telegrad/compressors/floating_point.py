"""Floating-point truncation: sign, exponent and the first mantissa bits of every entry."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.kernels.exponents import has_exponent, split
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import All, Positions
from telegrad.wire.values import Exponents

__all__ = ["MANTISSA_BITS", "FloatingPoint", "SplitFloats", "split_floats"]

MANTISSA_BITS = {torch.float64: 52, torch.float32: 23, torch.bfloat16: 7, torch.float16: 10}
"""Bits after the leading one in each dtype."""


@dataclass(frozen=True)
class SplitFloats:
    """The non-zero entries ±2^exponent (1 + mantissa 2^−bits) and where they are. Float64 numbers below 2^−1022 count
    as zero.
    """

    positions: Positions
    negative: Tensor
    exponent: Tensor
    mantissa: Tensor
    bits: int

    def truncated(self, level: int) -> Exponents:
        """The entries cut to `level` mantissa bits."""
        if level == 0:
            return Exponents(self.negative, self.exponent)
        return Exponents(self.negative, self.exponent, self.mantissa >> self.bits - level, level, 2.0**-level)


def split_floats(v: Tensor) -> SplitFloats:
    """Sign, exponent and mantissa of v's entries, as integers; subnormal float32 and 16-bit numbers are
    renormalised.
    """
    positions: Positions = All(len(v))
    normal = has_exponent(v)
    if not bool(normal.all()):
        which = normal.nonzero().squeeze(1)
        positions, v = positions.keep(which), v[which]
    bits = MANTISSA_BITS[v.dtype]
    return SplitFloats(positions, *split(v, bits), bits)


@register(
    "floating_point", example="floating_point(level=2)", source="A15; Zukerman, Hamoud, Levy, ICML 2025, appendix B"
)
@dataclass(frozen=True)
class FloatingPoint(Compressor):
    """C(x) keeps sign, exponent and the first `level` mantissa bits of every entry, truncating toward zero (A15.1).

    Contractive with alpha = 1 − (1 + 2^level)^−2, the exact supremum (A15.2). A level beyond the dtype's mantissa (23
    bits for float32) sends all of it.
    """

    level: int

    unbiased = False
    random = False

    def __post_init__(self) -> None:
        check_that(0 <= self.level <= 52, self, "level", "a number of mantissa bits from 0 to 52 is allowed")

    def omega(self, d: int) -> float:
        return math.inf

    def alpha(self, d: int) -> float:
        return 1 - (1 + 2.0**self.level) ** -2

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        split = split_floats(v)
        return Encoded((Term(split.positions, split.truncated(min(self.level, split.bits))),))

    def _variance(self, v: Tensor) -> float:
        out = v.double().clone()
        for term in self._encode(v, Key()).terms:
            term.add_to(out, -1.0)
        return float(out.square().sum())
