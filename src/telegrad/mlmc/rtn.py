"""The RTN ladder: level l refines the uniform grid of l − 1 bits to one of l bits."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.rtn import round_to_grid
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels, geometric_probabilities
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats, Table

__all__ = ["RTNLadder"]


@register(
    "rtn", example="rtn(grids=12)", source="A16, B5; Zukerman, Hamoud, Levy, ICML 2025, section 3.2 and appendix G.2"
)
@dataclass(frozen=True)
class RTNLadder(Ladder):
    """g^l = mid-tread rounding to nearest with l bits, l = 1 … `grids`; one more level is v itself, so that nothing is
    biased (B5.1).

    Residuals take few distinct values, sent once in a table; the exact level costs the tensor's full precision.
    E‖C(v) − v‖² = (ΣΔ_l)² − ‖v‖² with adaptive probabilities. Level 1 is zero and never drawn.
    """

    grids: int = 12

    values = "fp32"

    def __post_init__(self) -> None:
        check_that(2 <= self.grids <= 20, self, "grids", "a number of grids from 2 to 20 is allowed")

    def omega(self, d: int, adaptive: bool) -> float:
        # |g^l − v| <= min(|v|, δ_l/2) entry by entry, and m <= ‖v‖, bound every Δ_l by the triangle inequality.
        error = torch.tensor([min(1.0, d**0.5 / (2**level - 1)) for level in range(1, self.grids + 1)] + [0.0])
        norms = (error[1:] + error[:-1]).double()
        if adaptive:
            return float(norms.sum()) ** 2 - 1
        return float((norms.square() / self._fixed()[1:]).sum()) - 1

    def _fixed(self) -> Tensor:
        return torch.cat([torch.zeros(1, dtype=torch.float64), geometric_probabilities(self.grids)])

    def levels(self, v: Tensor) -> Levels:
        return _Grids(v, self.grids, self._fixed())


class _Grids(Levels):
    def __init__(self, v: Tensor, grids: int, fixed: Tensor) -> None:
        self.v, self.grids, self._law = v, grids, fixed

    def _point(self, level: int) -> Tensor:
        if level == 0:
            return torch.zeros(len(self.v), dtype=torch.float64, device=self.v.device)
        if level > self.grids:
            return self.v.double()
        symbol, step = round_to_grid(self.v, level)
        return symbol.double() * step

    def norms(self) -> Tensor:
        points = [self._point(level) for level in range(1, self.grids + 2)]
        steps = [torch.linalg.vector_norm(fine - coarse) for coarse, fine in itertools.pairwise(points)]
        return torch.stack([torch.zeros_like(steps[0]), *steps]).cpu()

    def costs(self) -> Tensor:
        entropies = []
        for level in range(1, self.grids + 1):
            _, counts = torch.unique(self._point(level) - self._point(level - 1), return_counts=True)
            entropies.append(float(torch.special.entr(counts / len(self.v)).sum()) / 0.6931471805599453)
        exact = 64 if self.v.dtype == torch.float64 else 32
        return MESSAGE_OVERHEAD + len(self.v) * torch.tensor([*entropies, exact], dtype=torch.float64)

    def fixed_probabilities(self) -> Tensor:
        return self._law

    def base(self) -> tuple[Term, ...]:
        return ()

    def residual(self, level: int) -> tuple[Term, ...]:
        residual = self._point(level) - self._point(level - 1)
        which = residual.nonzero().squeeze(1)
        positions = IndexSet(len(residual), which)
        if level > self.grids:
            return (Term(positions, Floats(residual[which])),)
        table, symbol = torch.unique(residual[which], return_inverse=True)
        if 2 * len(table) > len(which):
            return (Term(positions, Floats(residual[which])),)
        return (Term(positions, Table(symbol, table)),)
