"""A ladder of ladders: every residual of one comes in the levels of another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.coding import Coding
from telegrad.kernels.threads import kept
from telegrad.mlmc.ladder import Ladder, Levels
from telegrad.spec import register
from telegrad.wire.code import Term
from telegrad.wire.positions import Positions

__all__ = ["ComposedLadder"]


@register("composed", example="composed(stopk(s=0.5), fixed_point)", source="B1.1 twice; B2 and B3 in one")
@dataclass(frozen=True)
class ComposedLadder(Ladder):
    """A ladder of ladders: the residuals of one ladder, refined by another.

    r_(i,j) = the j-th residual of `inner` on the i-th residual of `outer`.

    For `composed(stopk(s=0.5), fixed_point)` that is bit plane j of block i, relative to the block's largest entry.

    A message is as short as one plane of one block, and as unbiased. What the inner ladder always sends, it sends for
    every block. (1 + omega) is at most the product of both ladders': of the inner at d entries.

    Args:
        outer: the ladder whose residuals are refined.
        inner: the ladder that refines them.
    """

    outer: Ladder
    inner: Ladder

    @property
    def values(self) -> Coding:
        return self.inner.values

    def omega(self, d: int, adaptive: bool) -> float:
        return (1 + self.outer.omega(d, adaptive)) * (1 + self.inner.omega(d, adaptive)) - 1

    def levels(self, v: Tensor) -> Levels:
        return _Pairs(v, self.outer, self.inner)


class _Pairs(Levels):
    """Levels in the order (1, 1), (1, 2), …, (2, 1), …; a residual of zeros has levels of zeros."""

    def __init__(self, v: Tensor, outer: Ladder, inner: Ladder) -> None:
        self.outer = outer.levels(v)
        self.law = self.outer.fixed_probabilities()
        self.parts = [self._part(level + 1, inner) for level in range(len(self.law))]

    def _part(self, level: int, inner: Ladder) -> tuple[Positions, Levels | None, Levels]:
        """(places, levels of what is there, levels of ones instead: for what does not depend on the entries)."""
        (term,) = self.outer.residual(level)
        numbers = term.values.numbers().double()
        ones = inner.levels(torch.ones_like(numbers))
        return term.positions, inner.levels(numbers) if bool(numbers.any()) else None, ones

    def norms(self) -> Tensor:
        return self._norms

    @kept
    def _norms(self) -> Tensor:
        return torch.cat(
            [levels.norms() if levels else torch.zeros_like(ones.norms()) for _, levels, ones in self.parts]
        )

    def costs(self) -> Tensor:
        return torch.cat([8 * places.nbytes + (levels or ones).costs() for places, levels, ones in self.parts])

    def fixed_probabilities(self) -> Tensor:
        return torch.cat([p * ones.fixed_probabilities() for p, (_, _, ones) in zip(self.law, self.parts, strict=True)])

    def base(self) -> tuple[Term, ...]:
        inner = (_at(places, term) for places, levels, _ in self.parts if levels for term in levels.base())
        return (*self.outer.base(), *inner)

    def residual(self, level: int) -> tuple[Term, ...]:
        for places, levels, ones in self.parts:
            count = len(ones.fixed_probabilities())
            if level <= count:
                return tuple(_at(places, term) for term in levels.residual(level)) if levels else ()
            level -= count
        raise IndexError(level)


def _at(places: Positions, term: Term) -> Term:
    """`term`, which belongs to the vector of the entries at `places`, as a part of the whole one."""
    index = term.positions.indices()
    return Term(places if index is None else places.keep(index), term.values)
