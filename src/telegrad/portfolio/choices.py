"""The portfolio: what each family can do for a vector at any number of bits, the best first."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from torch import Tensor

from telegrad.compressors.ecdq import ECDQ
from telegrad.compressors.eden_rate import shortest_rotated
from telegrad.compressors.head_tail import Heads, HeadTail, encode_with
from telegrad.compressors.importance import Importance
from telegrad.compressors.rotated_coder import RotatedCoder
from telegrad.kernels.histograms.by_ratio import magnitude_sums
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import kept
from telegrad.mlmc.mean_budget import planes_within
from telegrad.portfolio.families import FIXED, Choice, dearest_within, fixed_rotation, importance, rounding
from telegrad.portfolio.magnitudes import Magnitudes
from telegrad.random import Key
from telegrad.wire.code import Code
from telegrad.wire.distinct import few_distinct

__all__ = ["MOST_BITS", "Portfolio", "portfolio"]

_DITHERING = 1.0
_ABOUT = 1.01  # prices are expectations
_FEW = 4096  # entries: below, the states of the trellis coder's lanes may cost what its paths save
MOST_BITS = 12.0
"""A coordinate."""


class Portfolio:
    """What each family can do for a flat, non-zero vector at any number of bits; its histograms are made once.

    Families: a kept head with a rotated tail in a trellis code of so many `states`, or in a dead zone where entries are
    few or bits many (A27, EDEN where no head pays), importance sampling (A5.5), stochastic rounding (A7), from a bit a
    coordinate entropy-coded subtractive dithering (A26, A28.6), and below 2048 entries EDEN of fixed bits (A21.4).
    Where few of the numbers are distinct, these and which one each is (A5, k = d). Where only the `mean` of the bits
    counts, MLMC over bit planes, too (B9.1).
    """

    def __init__(self, v: Tensor, states: Literal[8, 256] = 8, mean: bool = False) -> None:
        histogram, self.states, self.mean, self.v = magnitude_sums(v), states, mean, v
        self.magnitudes = Magnitudes.in_order(histogram, 8 * v.element_size())
        self.heads = Heads(histogram, v.dtype)

    @kept
    def lossless(self) -> Choice | None:
        """All that is not zero, as it is, where few of these numbers are distinct."""
        if not few_distinct(plain(self.v)):
            return None
        everything = Importance(int(self.v.count_nonzero()))
        terms = everything._encode(self.v, Key()).terms
        return Choice(everything, float(Code(tuple(self.v.shape), self.v.dtype, terms).nbits), 0.0)

    def at(self, bits: float) -> list[Choice]:
        """The choices at `bits` a coordinate, the least predicted error first; where no message is so short, the
        shortest first.
        """
        d, dtype, budget = len(self.v), self.v.dtype, bits * len(self.v)
        rate = min(bits, MOST_BITS)
        found = [
            dearest_within(partial(importance, self.magnitudes), self.magnitudes.nonzero, budget),
            dearest_within(partial(rounding, self.magnitudes), 1 << 24, budget),
        ]
        if self.lossless is not None:
            found.append(self.lossless)
        if bits >= _DITHERING:
            for dithering in self._ditherings(rate):
                solved = dithering.solved(self.v)
                found.append(Choice(dithering, solved.nbits, solved.error, solved.encode))
        if d < FIXED:
            fixed = fixed_rotation(d, dtype, budget)
            found.append(replace(fixed, error=fixed.error * self.magnitudes.energy))
        for form in self._head_tails(rate):
            head = self.heads.best(rate * d, form.tail)
            tailed = partial(encode_with, head, self.v, rate)
            found.append(Choice(form, max(budget, shortest_rotated(d, dtype)), head.error, tailed))
        if self.mean:
            found += [Choice(*planes) for planes in planes_within(self.v, budget)]
        within = [choice for choice in found if choice.bits <= budget * _ABOUT]
        if not within:
            return sorted(found, key=lambda choice: choice.bits)
        return sorted(within, key=lambda choice: choice.error)

    def _ditherings(self, rate: float) -> list[ECDQ]:
        paths = ECDQ(rate, "trellis", self.states)
        return [paths, ECDQ(rate)] if len(self.v) < _FEW else [paths]

    def _head_tails(self, rate: float) -> list[HeadTail]:
        found = [HeadTail(rate, "trellis", self.states)] if rate <= RotatedCoder("trellis").most else []
        return [*found, HeadTail(rate)] if len(self.v) < _FEW or not found else found


def portfolio(v: Tensor, bits: float, states: Literal[8, 256] = 8) -> list[Choice]:
    """What each family can do for the flat, non-zero v at `bits` a coordinate, the least predicted error first."""
    return Portfolio(v, states).at(bits)
