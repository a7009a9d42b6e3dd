"""Floating-point truncation: sign, exponent and the first mantissa bits of every entry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Contractive, Encoded
from telegrad.kernels.coding.scatter import taken
from telegrad.kernels.quantising.exponents import exponent_range, has_exponent, split
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
    """The non-zero entries ±2^exponent (1 + mantissa 2^−bits) and where they are; the exponents from `low` to `high`.
    Float64 numbers below 2^−1022 count as zero, subnormal float32 and 16-bit numbers are renormalised.
    """

    positions: Positions
    entries: Tensor
    low: int
    high: int

    @property
    def bits(self) -> int:
        return MANTISSA_BITS[self.entries.dtype]

    def keep(self, which: Tensor) -> SplitFloats:
        """Only the entries number `which` (increasing int64) of these."""
        return SplitFloats(self.positions.keep(which), taken(self.entries, which), self.low, self.high)

    def truncated(self, level: int) -> Exponents:
        """The entries cut to `level` mantissa bits."""
        return self.with_bits(1, level, 2.0**-level) if level else self.with_bits(1, 0, 0.0)

    def with_bits(self, first: int, last: int, weight: float) -> Exponents:
        """±2^exponent (1 + weight · mantissa), of whose bits only those number `first` to `last` are taken."""
        negative, below, mantissa = split(self.entries, self.low, self.high, first, last)
        return Exponents(negative, below, self.high, mantissa, last - first + 1, weight)


def split_floats(v: Tensor) -> SplitFloats:
    """The entries of v that have an exponent; v itself, not a copy, where all have."""
    low, high, count = exponent_range(v)
    whole = SplitFloats(All(len(v)), v, low, high)
    return whole if count == len(v) else whole.keep(has_exponent(v).nonzero().squeeze(1))


@register(
    "floating_point", example="floating_point(level=2)", source="A15; Zukerman, Hamoud, Levy, ICML 2025, appendix B"
)
@dataclass(frozen=True)
class FloatingPoint(Contractive):
    """Floating-point truncation: sign, exponent and the leading mantissa bits of every entry.

    C(x) keeps sign, exponent and the first `level` mantissa bits of every entry, truncating toward zero (A15.1).

    Contractive with alpha = 1 − (1 + 2^level)^−2, the exact supremum (A15.2). A level beyond the dtype's mantissa (23
    bits for float32) sends all of it.

    Args:
        level: mantissa bits kept, from 0 on.

    References:
        Zukerman, Hamoud and Levy, "Beyond Communication Overhead: A Multilevel Monte Carlo Approach for Mitigating
            Compression Bias in Distributed Learning", 2025, https://arxiv.org/abs/2507.05508
    """

    level: int

    random = False

    def __post_init__(self) -> None:
        check_that(0 <= self.level <= 52, self, "level", "a number of mantissa bits from 0 to 52 is allowed")

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
