"""Ladders of deterministic quantisers: what level l makes of v is a vector of few distinct points, the top is v."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from telegrad.kernels.magnitudes import sums_of_squares
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Levels
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats, Table

__all__ = ["PointLevels"]


class PointLevels(Levels):
    """g^l = points(l) for l = 1 … count, g⁰ = 0 and g^(count+1) = v itself, so that nothing is biased.

    Residuals take few distinct values, sent once in a table; the exact level costs the tensor's full precision.
    """

    def __init__(self, v: Tensor, points: Callable[[int], Tensor], count: int, fixed: Tensor) -> None:
        self.v, self.points, self.count, self._law = v, points, count, fixed

    def _point(self, level: int) -> Tensor:
        if level == 0:
            return torch.zeros(len(self.v), dtype=torch.float64, device=self.v.device)
        return self.points(level) if level <= self.count else self.v.double()

    def norms(self) -> Tensor:
        points = (self._point(level) for level in range(self.count + 2))
        squares = [sums_of_squares(fine - coarse, 65536).tolist() for coarse, fine in itertools.pairwise(points)]
        return torch.tensor([math.sqrt(math.fsum(sums)) for sums in squares], dtype=torch.float64)

    def costs(self) -> Tensor:
        entropies = []
        for level in range(1, self.count + 1):
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
        if level > self.count:
            return (Term(positions, Floats(residual[which])),)
        table, symbol = torch.unique(residual[which], return_inverse=True)
        if 2 * len(table) > len(which):
            return (Term(positions, Floats(residual[which])),)
        return (Term(positions, Table(symbol, table)),)
