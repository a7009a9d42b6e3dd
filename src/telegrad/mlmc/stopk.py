"""The s-Top-k ladder: level l adds the l-th block of s coordinates in the order of decreasing magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.coding import Coding
from telegrad.kernels.reference import descending_order
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels
from telegrad.spec import Amount, check_amount, check_that, register, resolve_amount
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats

__all__ = ["SegmentedTopKLadder"]

_VALUE_BITS = {"fp32": 32, "bf16": 16, "log": 2, "sign": 1}


@register("stopk", example="stopk(s=0.01)", source="A3, B2, B10; Zukerman, Hamoud, Levy, ICML 2025, section 3.2")
@dataclass(frozen=True)
class SegmentedTopKLadder(Ladder):
    """r_l = v on block S_l = the ((l−1)s+1)-th to the (ls)-th largest entries, L = ⌈d/s⌉; residuals are orthogonal.

    omega(v) = (Σ_l ‖v_S_l‖)² / ‖v‖² − 1 <= ⌈d/s⌉ − 1 (B2.1, B2.5). With `values=sign` entry j of the block is kept with
    probability |v_j| / m_l and sent as a sign, m_l = max over the block: ‖v_S_l‖² becomes m_l ‖v_S_l‖₁ (B2.7).
    Blocks are cut after sorting, equal magnitudes in the order of their indices; the last block may be shorter.
    `growth`: each block is so many times as long as the one before: logarithmically many levels, which want
    `probabilities=cost` (B10.2: at growth 1.2 the price is 1 %, with adaptive ones far more).
    """

    s: Amount
    values: Coding = "fp32"
    growth: float = 1.0

    def __post_init__(self) -> None:
        check_amount(self, "s")
        check_that(1.0 <= self.growth <= 16.0, self, "growth", "a factor from 1 to 16 is allowed")

    def omega(self, d: int, adaptive: bool) -> float:
        s = resolve_amount(self, "s", d)
        # A block's m ‖v‖₁ exceeds ‖v‖² by at most (√s + 1) / 2 (A10.2).
        if self.growth == 1.0:
            return -(-d // s) * ((s**0.5 + 1) / 2 if self.values == "sign" else 1.0) - 1
        sizes = block_sizes(d, s, self.growth)
        inflation = (float(sizes.max()) ** 0.5 + 1) / 2 if self.values == "sign" else 1.0
        if adaptive:
            return len(sizes) * inflation - 1
        # Σ Δ_l² / p_l is linear in the Δ_l², so the worst case lies in the block that is drawn least for its energy.
        return inflation / float(fixed_law(sizes).min()) - 1

    def levels(self, v: Tensor) -> Levels:
        return _Blocks(v, block_sizes(len(v), resolve_amount(self, "s", len(v)), self.growth), self.values)


def block_sizes(d: int, s: int, growth: float) -> Tensor:
    """The sizes of the blocks, int64: ⌊s · growth^l⌋ for l = 0, 1, …, and what is left."""
    if growth == 1.0:
        equal = torch.full((-(-d // s),), s)
        equal[-1] = (d - 1) % s + 1
        return equal
    sizes, left, size = [], d, float(s)
    while left:
        sizes.append(min(left, int(size)))
        left -= sizes[-1]
        size = min(size * growth, float(d))
    return torch.tensor(sizes)


def fixed_law(sizes: Tensor) -> Tensor:
    """p ∝ √size: the minimax law for blocks of equal entries, uniform where s divides d."""
    roots = sizes.double().sqrt()
    return roots / roots.sum()


class _Blocks(Levels):
    orthogonal = True

    def __init__(self, v: Tensor, sizes: Tensor, values: Coding) -> None:
        self.v, self.sizes, self.values = v, sizes, values
        self.stops = sizes.cumsum(0)
        self.order = descending_order(v)
        self.magnitude = v[self.order].abs().double()
        self.largest = self.magnitude[self.stops - sizes]

    def _relative_sums(self, power: int) -> Tensor:
        """Σ (|v_j| / m_l)^power over each block; relative to its largest entry, so that tiny blocks do not vanish."""
        scale = torch.where(self.largest > 0, self.largest, 1.0).repeat_interleave(self.sizes)
        relative = (self.magnitude / scale).pow(power).cpu().numpy()
        return torch.from_numpy(np.add.reduceat(relative, (self.stops - self.sizes).numpy()))

    def norms(self) -> Tensor:
        # With signs the second moment is m ‖v_S‖₁ = m² Σ |v_j| / m (B2.7).
        return self.largest.cpu() * self._relative_sums(1 if self.values == "sign" else 2).sqrt()

    def costs(self) -> Tensor:
        entries = self._relative_sums(1) if self.values == "sign" else self.sizes.double()
        index = torch.log2(len(self.v) / self.sizes.double()) + 1.44
        return MESSAGE_OVERHEAD + entries * (index.clamp(min=1.0) + _VALUE_BITS[self.values])

    def fixed_probabilities(self) -> Tensor:
        return fixed_law(self.sizes)

    def base(self) -> tuple[Term, ...]:
        return ()

    def residual(self, level: int) -> tuple[Term, ...]:
        stop, size = int(self.stops[level - 1]), int(self.sizes[level - 1])
        index = self.order[stop - size : stop].sort().values
        return (Term(IndexSet(len(self.v), index), Floats(self.v[index].double())),)
