"""Ladders of deterministic quantisers: what level l makes of v is a point of a uniform grid, the top is v itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.coding.bitmaps import moved_together
from telegrad.kernels.quantising.uniform_grids import ZERO, Refinement, UniformGrid, squared_steps
from telegrad.kernels.reference import steady_sum
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Levels
from telegrad.wire.code import Term
from telegrad.wire.positions import marked
from telegrad.wire.values import Floats, Table

__all__ = ["PointLevels"]


class PointLevels(Levels):
    """g^l = the points of grid(l) that v goes to, l = 1 … count, g⁰ = 0 and g^(count+1) = v itself, so that nothing is
    biased.

    Residuals take few distinct values, sent once in a table; the exact level costs the tensor's full precision.
    """

    def __init__(self, v: Tensor, grid: Callable[[int], UniformGrid], count: int, fixed: Tensor) -> None:
        self.v, self.count, self._law = v, count, fixed
        self._grid = cache(lambda level: grid(level) if level else ZERO)

    def norms(self) -> Tensor:
        squares = squared_steps(self.v, [self._grid(level) for level in range(1, self.count + 1)])
        return torch.tensor([math.sqrt(math.fsum(sums)) for sums in squares.tolist()], dtype=torch.float64)

    def costs(self) -> Tensor:
        entropies = []
        for level in range(1, self.count + 1):
            _, change, counts = self._steps(level)
            distinct, which = np.unique(change, return_inverse=True)
            together = np.bincount(which, counts, len(distinct)).astype(np.int64)
            terms = torch.special.entr(torch.from_numpy(together) / len(self.v))
            entropies.append(steady_sum(terms) / math.log(2))
        exact = 64 if self.v.dtype == torch.float64 else 32
        return MESSAGE_OVERHEAD + len(self.v) * torch.tensor([*entropies, exact], dtype=torch.float64)

    def fixed_probabilities(self) -> Tensor:
        return self._law

    def base(self) -> tuple[Term, ...]:
        return ()

    def residual(self, level: int) -> tuple[Term, ...]:
        if level > self.count:
            grid = self._grid(self.count)
            residual = grid.points(plain(grid.numbers(self.v)))
            np.subtract(plain(self.v), residual, out=residual)
            marks = residual != 0.0
            return (Term(marked(marks), Floats(torch.from_numpy(moved_together(residual, marks)))),)
        code, change, counts = self._steps(level)
        table, changes = np.unique(change[change != 0]), int(counts[change != 0].sum())
        # The entries that do not change have the number after the last.
        number = np.zeros(self._refinement(level).size, dtype=np.int64)
        number[code] = np.where(change != 0, np.searchsorted(table, change), len(table))
        symbol = self._refinement(level).translated(self.v, number)
        marks = symbol != len(table)
        symbol = moved_together(symbol, marks)
        if 2 * len(table) > changes:
            return (Term(marked(marks), Floats(torch.from_numpy(table[symbol]))),)
        return (Term(marked(marks), Table(torch.from_numpy(symbol), torch.from_numpy(table))),)

    def _refinement(self, level: int) -> Refinement:
        return Refinement(self._grid(level - 1), self._grid(level))

    def _steps(self, level: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The codes of the level's refinement that occur, g^l − g^(l−1) of each, and how many entries have it."""
        coarse, fine = self._grid(level - 1), self._grid(level)
        code, counts, below = self._refinement(level).occurring(self.v)
        change = fine.points(fine.bottom + code - below) - coarse.points(coarse.bottom + below)
        return code, change, counts
