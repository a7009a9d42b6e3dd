"""auto: for each tensor, the unbiased compressor of a portfolio with the least predicted error at the bits allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded, Unbiased
from telegrad.compressors.ecdq import ECDQ
from telegrad.compressors.eden import Eden
from telegrad.compressors.eden_rate import rotated_omega, shortest_rotated
from telegrad.compressors.head_tail import Heads, HeadTail, encode_with
from telegrad.compressors.importance import Importance
from telegrad.compressors.message_lengths import head_bits, places_bits, stream_bits
from telegrad.compressors.qsgd import QSGD
from telegrad.compressors.rotated_coder import RotatedCoder
from telegrad.kernels.histograms.by_ratio import MagnitudeSums, magnitude_sums
from telegrad.kernels.rotation.blocks import block_sizes
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import kept
from telegrad.mlmc.mean_budget import planes_within
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.bits import SCALARS, varint_nbytes
from telegrad.wire.code import Code
from telegrad.wire.distinct import few_distinct
from telegrad.wire.integers import table_bits

__all__ = ["Auto", "Choice", "Magnitudes", "Portfolio", "portfolio"]

_STEPS_AN_OCTAVE = 64
# What messages have beyond entropies, by benchmarks/predictions.py: header, counts and the states of coders; what
# gaps lose, their table included; what a stream of symbols loses.
_HEADER, _PLACES, _SYMBOLS = 180.0, 1.007, 1.001
_DENSE = 1 / 16
_DITHERING = 1.0
_SHORT = 16384  # entries: below, the parts of messages are priced as they are coded
_FIXED = 2048
_WORTH_CODING, _PADDING = 512, 3.5
_ABOUT = 1.01  # prices are expectations
_WITHIN = 13 / 12  # predictions of errors come true
_FEW = 4096  # entries: below, the states of the trellis coder's lanes may cost what its paths save
_LEAST_BITS, _MOST_BITS = 2.0**-12, 12.0


@dataclass(frozen=True)
class Magnitudes:
    """A vector's non-zero magnitudes in bins of 1/64 octave, largest first: how many, their sums and sums of squares.

    One pass over the vector gives it; all predictions are made from it.
    """

    d: int
    count: np.ndarray
    total: np.ndarray
    square: np.ndarray
    width: int = 32
    """Bits of an entry as it is."""

    @staticmethod
    def of(v: Tensor) -> Magnitudes:
        """Those of a flat, non-zero vector; entries smaller than the histogram tells from zero count as zero."""
        return Magnitudes.in_order(magnitude_sums(v), 8 * v.element_size())

    @staticmethod
    def in_order(histogram: MagnitudeSums, width: int) -> Magnitudes:
        """The bins of a histogram that are not empty."""
        count, total, square = (x[:0:-1] for x in (histogram.count, histogram.total, histogram.square))
        kept = count > 0
        return Magnitudes(histogram.d, count[kept].astype(np.float64), total[kept], square[kept], width)

    @property
    def nonzero(self) -> int:
        """How many entries are not zero."""
        return int(self.count.sum())

    @property
    def mean(self) -> np.ndarray:
        """The mean magnitude of each bin."""
        return self.total / self.count

    @property
    def energy(self) -> float:
        """‖v‖²."""
        return float(self.square.sum())


@dataclass(frozen=True)
class Choice:
    """A compressor of the portfolio with its predicted price in bits and squared error for one vector.

    `encode`: what it makes of that vector with a key, where the prediction has found out things that it needs.
    """

    compressor: Compressor
    bits: float
    error: float
    encode: Callable[[Key], Encoded] | None = field(default=None, compare=False, repr=False)


def _binary_entropy(share: float) -> float:
    return 0.0 if not 0.0 < share < 1.0 else -share * math.log2(share) - (1 - share) * math.log2(1 - share)


def _places(d: int, n: float) -> float:
    """The bits of n places among d."""
    return places_bits(d, n) if d < _SHORT else _PLACES * d * _binary_entropy(n / d)


def _importance(statistics: Magnitudes, k: int) -> Choice:
    """Importance sampling of k entries: places at their entropy, a sign each, certain entries in full (A5)."""
    mean, d = statistics.mean, statistics.d
    if k >= statistics.nonzero:
        head, drawn, error = float(statistics.nonzero), 0.0, 0.0
    else:
        inside = np.cumsum(statistics.count)
        # With the bins above `cut` certain, t = Σ rest / (k − r), from the first cut on where the next bin is below t.
        beyond = np.append(statistics.total.sum() - np.cumsum(statistics.total), 0.0)
        certain = np.append(0.0, inside)
        thresholds = np.append(statistics.total.sum(), beyond[:-1]) / np.maximum(k - certain, 1e-9)
        fits = (k > certain) & (np.append(mean, 0.0) <= thresholds)
        cut = int(fits.argmax()) if fits.any() else len(mean)
        head, t = float(certain[cut]), float(thresholds[cut])
        error = max(0.0, float(t * statistics.total[cut:].sum() - statistics.square[cut:].sum()))
        drawn = max(0.0, k - head)
    bits = _places(d, drawn) + _places(d, head) + drawn + statistics.width * head
    if d >= _SHORT:
        return Choice(Importance(k), _HEADER + bits, error)
    bits += (8 * 5 + _PADDING if drawn else 0) + (8 * 2 if head else 0)
    return Choice(Importance(k), head_bits(d) + bits, error)


def _rounding(statistics: Magnitudes, levels: int) -> Choice:
    """Stochastic rounding to ‖v‖/levels: symbols at the entropy of their expected frequencies, exact to a bin (A7)."""
    step, d = math.sqrt(statistics.energy) / levels, statistics.d
    y, n = statistics.mean / step, statistics.count
    low = np.floor(y)
    # A bin wider than the step holds many symbols: about uniform within it.
    wide = np.maximum(1.0, y / _STEPS_AN_OCTAVE * math.log(2.0))
    fraction = np.where(wide > 1.0, 0.0, y - low)
    error = step**2 * float((n * np.where(wide > 1.0, 1 / 6, fraction * (1 - fraction))).sum())
    symbols, which = np.unique(np.append(low, low + 1), return_inverse=True)
    frequency = np.bincount(which, np.append(n * (1 - fraction), n * fraction))
    zero = d - float(n.sum())
    if symbols[0] == 0:
        zero, symbols, frequency = zero + float(frequency[0]), symbols[1:], frequency[1:]
    nonzero, top = d - zero, float(low[0]) + 1
    dense = d >= _WORTH_CODING and nonzero >= _DENSE * d
    if d < _SHORT:
        if dense:  # zeros, signs and magnitudes in one stream
            both = np.stack([2 * symbols - 1, 2 * symbols], axis=1).reshape(-1)
            bits = 8 * 6 + stream_bits(np.append(0.0, both), np.append(zero, np.repeat(frequency / 2, 2)))
        else:
            bits = 8 * 4 + _PADDING + _places(d, nonzero) + nonzero + stream_bits(symbols - 1, frequency)
        return Choice(QSGD(levels), head_bits(d) + bits, error)
    symbols, frequency = symbols[frequency > 0], frequency[frequency > 0]
    places = d * _binary_entropy(zero / d)
    magnitudes = float((frequency * np.log2(nonzero / frequency)).sum()) + float((n * np.log2(wide)).sum())
    if dense:
        bits = _SYMBOLS * (places + nonzero + magnitudes) + table_bits(2 * top)
    else:
        bits = _PLACES * places + nonzero + _SYMBOLS * magnitudes + table_bits(top)
    return Choice(QSGD(levels), _HEADER + bits, error)


def _fixed_rotation(d: int, dtype: torch.dtype, budget: float) -> Choice:
    """EDEN of fixed bits, as many as the budget allows: for few entries tables and states cost more than they save."""

    def taken(entries: int) -> float:
        """The bits beside the cells, where so many of the entries are sent."""
        drawn = 8 * (8 + varint_nbytes(entries)) if entries < d else 0
        return head_bits(d) + drawn + 8 * (8 + 1 + 1 + 3 + SCALARS[dtype].size * len(block_sizes(entries)))

    # Two runs of cells, each padded to whole bytes.
    bits = math.floor(min(8.0, (budget - taken(d) - 14) / d) * 65536) / 65536
    if bits >= 1:
        chosen = Eden(bits)
        return Choice(chosen, taken(d) + bits * d + 7, chosen.omega(d))
    kept = d - 1
    while kept > 1 and taken(kept) + kept + 7 > budget:
        kept = max(1, min(kept - 1, int(budget - taken(kept) - 7)))
    chosen = Eden(max(kept, 1) / d)
    return Choice(chosen, taken(kept) + kept + 7, chosen.omega(d))


def _dearest_within(make: Callable[[int], Choice], most: int, budget: float) -> Choice:
    """The choice with the largest whole parameter whose predicted bits, which grow with it, stay within the budget;
    the cheapest where there is none.
    """
    low, high = 1, max(1, most)
    if make(low).bits > budget:
        return make(low)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if make(middle).bits <= budget else (low, middle - 1)
    return make(low)


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
        rate = min(bits, _MOST_BITS)
        found = [
            _dearest_within(partial(_importance, self.magnitudes), self.magnitudes.nonzero, budget),
            _dearest_within(partial(_rounding, self.magnitudes), 1 << 24, budget),
        ]
        if self.lossless is not None:
            found.append(self.lossless)
        if bits >= _DITHERING:
            for dithering in self._ditherings(rate):
                solved = dithering.solved(self.v)
                found.append(Choice(dithering, solved.nbits, solved.error, solved.encode))
        if d < _FIXED:
            fixed = _fixed_rotation(d, dtype, budget)
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


def _bound(budget: float, d: int, states: Literal[8, 256]) -> float:
    """The least constant of the choices that fit into `budget` bits whatever the vector is; if none, the largest of the
    shortest ones. Scales and values may have 64 bits.
    """
    constants = []
    if budget >= shortest_rotated(d, torch.float64):
        constants.append(float(rotated_omega(budget, d, torch.float64)))
        if budget <= RotatedCoder("trellis").most * d:
            constants.append(float(RotatedCoder("trellis", states).omega(budget, d, torch.float64)))
    if d < _FIXED and (fixed := _fixed_rotation(d, torch.float64, budget)).bits <= budget:
        constants.append(fixed.error)

    def dearest(k: int) -> float:  # all certain, and places at their dearest
        fixed = _HEADER if d >= _SHORT else head_bits(d) + 8 * 9
        return fixed + _places(d, min(k, d / 2)) + 65 * k

    low, high = 0, d
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if dearest(middle) <= budget else (low, middle - 1)
    if low:
        constants.append(d / low - 1)
    return min(constants) if constants else max(d - 1.0, _fixed_rotation(d, torch.float64, 0.0).error)


def portfolio(v: Tensor, bits: float, states: Literal[8, 256] = 8) -> list[Choice]:
    """What each family can do for the flat, non-zero v at `bits` a coordinate, the least predicted error first."""
    return Portfolio(v, states).at(bits)


@register("auto", example="auto(bits=0.5)", source="the portfolio of B14's strongest unbiased rows: A5, A7, A26 to A28")
@dataclass(frozen=True)
class Auto(Unbiased):
    """A portfolio: for each vector the unbiased compressor with the least predicted error at a given number of bits.

    For each vector, the unbiased compressor with the least predicted error at `bits` a coordinate; or, with `omega`
    instead, the fewest bits at which a predicted E‖C(x) − x‖² <= omega ‖x‖².

    It chooses among a kept head with a rotated tail, importance sampling, stochastic rounding, subtractive dithering
    and, for few entries, EDEN of fixed bits, from histograms of magnitudes. The message describes itself, so the choice
    needs no bit of its own. Where none is so short, the shortest is sent.
    `omega(d)` bounds the error for every x: 13/12, which predictions are right to, of the least constant of those that
    always fit; `variance` is the prediction for what is chosen. Unbiased as far as what it chooses is: exactly, but
    where rotations are taken (see eden).

    Args:
        bits: bits a coordinate that a message, or the mean of messages, may have.
        target: named `omega` in specs: the largest predicted E‖C(x) − x‖² / ‖x‖²; either this or bits is given.
        effort: trellises of 8 states, or of 256 (best), which save another 6 to 10 % of the rotated tail's error and
            take some ten times as long to encode; decoding is the same.
        budget: what `bits` are of: every message, or the mean over messages. Then MLMC over bit planes by cost is a
            choice, too, whose messages are mostly a few bytes, and now and then long; it errs less at very few bits of
            vectors with large entries.
    """

    bits: float | None = None
    target: float | None = field(default=None, metadata={"spec": "omega"})
    effort: Literal["fast", "best"] = "fast"
    budget: Literal["message", "mean"] = "message"

    exact = False

    def __post_init__(self) -> None:
        check_that((self.bits is None) != (self.target is None), self, "bits", "either bits or omega is wanted")
        if self.bits is not None:
            check_that(0 < self.bits <= _MOST_BITS, self, "bits", "bits a coordinate above 0 and up to 12 are allowed")
        if self.target is not None:
            check_that(self.target > 0, self, "target", "an omega above 0 is allowed")

    @property
    def _states(self) -> Literal[8, 256]:
        return 8 if self.effort == "fast" else 256

    def _portfolio(self, v: Tensor) -> Portfolio:
        return Portfolio(v, self._states, self.budget == "mean")

    def choose(self, v: Tensor) -> Choice:
        """The choice for a flat, finite, non-zero vector."""
        if self.bits is not None:
            return self._portfolio(v).at(self.bits)[0]
        choices, goal = self._portfolio(v), float(self.target or 0.0) * float(v.double().square().sum())
        low, high = math.log2(_LEAST_BITS), math.log2(_MOST_BITS)
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (low, middle) if choices.at(2.0**middle)[0].error <= goal else (middle, high)
        return choices.at(2.0**high)[0]

    def omega(self, d: int) -> float:
        if self.target is not None:
            return _WITHIN * float(self.target)
        return _WITHIN * _bound(float(self.bits or 0) * d, d, self._states)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        choice = self.choose(v)
        return choice.encode(key) if choice.encode else choice.compressor._encode(v, key)

    def _variance(self, v: Tensor) -> float:
        return self.choose(v).compressor._variance(v)
