"""The fixed-point ladder: level l adds the l-th bit of every entry relative to the largest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.coding import symbols_term
from telegrad.kernels.quantising.bit_planes import PLANES, leading_bits, plane_counts, quotients
from telegrad.kernels.statistics.magnitudes import largest_magnitude
from telegrad.kernels.threads import kept
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels, geometric_probabilities
from telegrad.spec import register
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats

__all__ = ["FixedPointLadder"]

_LEVELS = PLANES + 1
_STEPS = 2.0 ** -torch.arange(1, _LEVELS, dtype=torch.float64)


@register("fixed_point", example="fixed_point", source="A14, B3; Zukerman, Hamoud, Levy, ICML 2025, section 3.1")
@dataclass(frozen=True)
class FixedPointLadder(Ladder):
    """The fixed-point ladder: one bit plane of the entries on each level.

    r_l has the entries m · sign(v_j) · b_jl · 2^−l, b_jl the l-th bit of |v_j| / m, m = ‖v‖_∞, l = 1 … 62; the 63rd
    level is all the rest.

    Fixed probabilities p_l = 2^−l / (1 − 2^−63) give E‖C(v) − v‖² = (1 − 2^−63) m ‖v‖₁ − ‖v‖² (B3.4), entry by entry
    the law of TernGrad (B3.5); adaptive ones p_l ∝ 2^−l √n_l, n_l the number of set bits, m² (Σ 2^−l √n_l)² − ‖v‖²,
    which is never more (B3.6). omega <= (√d − 1)/2 (A10.2).

    References:
        Zukerman, Hamoud and Levy, "Beyond Communication Overhead: A Multilevel Monte Carlo Approach for Mitigating
            Compression Bias in Distributed Learning", 2025, https://arxiv.org/abs/2507.05508
    """

    values = "fp32"

    def omega(self, d: int, adaptive: bool) -> float:
        return (d**0.5 - 1) / 2

    def on_gpu(self, v: Tensor) -> bool:
        return True

    def levels(self, v: Tensor) -> Levels:
        return _BitPlanes(v)


class _BitPlanes(Levels):
    def __init__(self, v: Tensor) -> None:
        self.v, self.m = v, largest_magnitude(v)

    @kept
    def _counts(self) -> tuple[Tensor, Tensor]:
        """How many bits of each plane are set, float64, and the sums of squares of the rest in units of 2^−62 m."""
        filled, squares = plane_counts(self.v, self.m)
        return filled.double(), squares

    def _remainder(self) -> Tensor:
        return quotients(self.v, self.m)[1] * (self.m * 2.0**-PLANES) * self.v.sign().double().cpu()

    def norms(self) -> Tensor:
        filled, squares = self._counts
        planes = self.m * _STEPS * filled.sqrt()
        rest = math.sqrt(math.fsum(squares.tolist())) * self.m * 2.0**-PLANES
        return torch.cat([planes, torch.tensor([rest], dtype=torch.float64)])

    def costs(self) -> Tensor:
        d, (filled, _) = len(self.v), self._counts
        share = filled / d
        entropy = torch.special.entr(share) + torch.special.entr(1 - share)
        planes = MESSAGE_OVERHEAD + d * entropy / torch.log(torch.tensor(2.0, dtype=torch.float64)) + filled
        return torch.cat([planes, torch.tensor([MESSAGE_OVERHEAD + 32 * d], dtype=torch.float64)])

    def fixed_probabilities(self) -> Tensor:
        return geometric_probabilities(_LEVELS)

    def base(self) -> tuple[Term, ...]:
        return ()

    def residual(self, level: int) -> tuple[Term, ...]:
        if level == _LEVELS:
            remainder = self._remainder()
            which = remainder.nonzero().squeeze(1)
            return (Term(IndexSet(len(self.v), which), Floats(remainder[which])),)
        return (symbols_term(leading_bits(self.v, self.m, level, 1), self.m * 2.0**-level),)
