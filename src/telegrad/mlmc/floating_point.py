"""The floating-point ladder: level l adds the l-th mantissa bit of every entry to its sign and exponent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.floating_point import SplitFloats, split_floats
from telegrad.kernels.quantising.exponents import bit_counts
from telegrad.kernels.reference import power_of_two
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels, geometric_probabilities
from telegrad.spec import register
from telegrad.wire.code import Term
from telegrad.wire.values import Floats

__all__ = ["FloatingPointLadder"]


@register("floating_point", example="floating_point", source="A15, B4; Zukerman, Hamoud, Levy, ICML 2025, appendix B")
@dataclass(frozen=True)
class FloatingPointLadder(Ladder):
    """The floating-point ladder: sign and exponent first, then one mantissa bit on each level.

    g⁰_j = sign(v_j) 2^E_j, always sent; r_l has the entries sign(v_j) 2^E_j b_jl 2^−l, b_jl the l-th mantissa bit
    (B4.1).

    L is the number of mantissa bits of v's dtype (23 for float32). Fixed probabilities 2^−l / (1 − 2^−L) give every
    entry the law of natural compression, E‖C(v) − v‖² = Σ 4^E_j f_j (1 − f_j) up to 2^−L (B4.2); adaptive ones p_l ∝
    2^−l √(Σ_j 4^E_j b_jl) are no worse (B4.4). omega <= 1/8. Sign, exponent and the one drawn bit of an entry travel
    together.

    References:
        Zukerman, Hamoud and Levy, "Beyond Communication Overhead: A Multilevel Monte Carlo Approach for Mitigating
            Compression Bias in Distributed Learning", 2025, https://arxiv.org/abs/2507.05508
    """

    values = "fp32"

    def omega(self, d: int, adaptive: bool) -> float:
        return 0.125

    def levels(self, v: Tensor) -> Levels:
        return _MantissaPlanes(split_floats(v))


class _MantissaPlanes(Levels):
    def __init__(self, split: SplitFloats) -> None:
        self.split = split

    def norms(self) -> Tensor:
        split = self.split
        counts = bit_counts(split.entries, split.low, split.high, split.bits)
        energy = power_of_two(torch.arange(1 - len(counts), 1).clamp(min=-1022)).square()
        squares = (energy[:, None] * counts).sum(0)
        return squares.sqrt() * 2.0 ** -torch.arange(1, split.bits + 1, dtype=torch.float64) * 2.0**split.high

    def costs(self) -> Tensor:
        return torch.full((self.split.bits,), MESSAGE_OVERHEAD + 5 * len(self.split.entries), dtype=torch.float64)

    def fixed_probabilities(self) -> Tensor:
        return geometric_probabilities(self.split.bits)

    def base(self) -> tuple[Term, ...]:
        return (Term(self.split.positions, self.split.truncated(0)),)

    def residual(self, level: int) -> tuple[Term, ...]:
        bits = self.split.with_bits(level, level, 1.0).mantissa
        assert bits is not None
        which = torch.from_numpy(np.flatnonzero(np.unpackbits(bits.numpy(), count=len(self.split.entries))))
        own = self.split.keep(which)
        return (Term(own.positions, Floats(own.truncated(0).numbers() * 2.0**-level)),)

    def joined(self, level: int, weight: float) -> tuple[Term, ...] | None:
        return (Term(self.split.positions, self.split.with_bits(level, level, weight * 2.0**-level)),)
