"""The s-Top-k ladder: level l adds the l-th block of s coordinates in the order of decreasing magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.coding import Coding
from telegrad.kernels.reference import descending_order
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels
from telegrad.spec import Amount, check_amount, register, resolve_amount
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats

__all__ = ["SegmentedTopKLadder"]

_VALUE_BITS = {"fp32": 32, "bf16": 16, "log": 2, "sign": 1}


@register("stopk", example="stopk(s=0.01)", source="A3, B2; Zukerman, Hamoud, Levy, ICML 2025, section 3.2")
@dataclass(frozen=True)
class SegmentedTopKLadder(Ladder):
    """r_l = v on block S_l = the ((l−1)s+1)-th to the (ls)-th largest entries, L = ⌈d/s⌉; residuals are orthogonal.

    omega(v) = (Σ_l ‖v_S_l‖)² / ‖v‖² − 1 <= ⌈d/s⌉ − 1 (B2.1, B2.5). With `values=sign` entry j of the block is kept with
    probability |v_j| / m_l and sent as a sign, m_l = max over the block: ‖v_S_l‖² becomes m_l ‖v_S_l‖₁ (B2.7).
    Blocks are cut after sorting, equal magnitudes in the order of their indices; the last block may be shorter.
    """

    s: Amount
    values: Coding = "fp32"

    def __post_init__(self) -> None:
        check_amount(self, "s")

    def omega(self, d: int, adaptive: bool) -> float:
        s = resolve_amount(self, "s", d)
        count = -(-d // s)
        # A block's m ‖v‖₁ exceeds ‖v‖² by at most (√s + 1) / 2 (A10.2).
        inflation = (s**0.5 + 1) / 2 if self.values == "sign" else 1.0
        return count * inflation - 1

    def levels(self, v: Tensor) -> Levels:
        return _Blocks(v, resolve_amount(self, "s", len(v)), self.values)


class _Blocks(Levels):
    orthogonal = True

    def __init__(self, v: Tensor, s: int, values: Coding) -> None:
        self.d, self.s, self.values = len(v), s, values
        self.count = -(-self.d // s)
        self.order = descending_order(v)
        self.v = v
        padded = torch.zeros(self.count * s, dtype=torch.float64, device=v.device)
        padded[: self.d] = v[self.order].abs()
        self.magnitude = padded.view(self.count, s)

    def norms(self) -> Tensor:
        largest = self.magnitude[:, 0]
        if self.values == "sign":
            return (largest * self.magnitude.sum(1)).sqrt()
        # Relative to the block's largest entry, so that squares of tiny blocks do not vanish.
        relative = self.magnitude / torch.where(largest > 0, largest, 1.0)[:, None]
        return largest * relative.square().sum(1).sqrt()

    def costs(self) -> Tensor:
        index = max(1.0, (torch.tensor(self.d / self.s).log2() + 1.44).item())
        entries = torch.full((self.count,), float(self.s), dtype=torch.float64)
        entries[-1] = self.d - self.s * (self.count - 1)
        if self.values == "sign":
            entries = self.magnitude.sum(1) / torch.where(self.magnitude[:, 0] > 0, self.magnitude[:, 0], 1.0)
        return MESSAGE_OVERHEAD + entries * (index + _VALUE_BITS[self.values])

    def fixed_probabilities(self) -> Tensor:
        sizes = torch.full((self.count,), float(self.s), dtype=torch.float64)
        sizes[-1] = self.d - self.s * (self.count - 1)
        # Proportional to √size: the minimax law for blocks of equal entries; uniform where s divides d.
        return sizes.sqrt() / sizes.sqrt().sum()

    def base(self) -> tuple[Term, ...]:
        return ()

    def residual(self, level: int) -> tuple[Term, ...]:
        index = self.order[(level - 1) * self.s : level * self.s].sort().values
        return (Term(IndexSet(self.d, index), Floats(self.v[index].double())),)
