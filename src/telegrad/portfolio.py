"""auto: for each tensor, the unbiased compressor of a portfolio with the least predicted error at the bits allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.compressors.ecdq import ECDQ
from telegrad.compressors.head_tail import Heads, HeadTail, encode_with
from telegrad.compressors.importance import Importance
from telegrad.compressors.qsgd import QSGD
from telegrad.compressors.rotated_coder import RotatedCoder
from telegrad.kernels.magnitude_sums import MagnitudeSums, magnitude_sums
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.integers import table_bits

__all__ = ["Auto", "Choice", "Magnitudes", "Portfolio", "portfolio"]

_STEPS_AN_OCTAVE = 64
# What messages have beyond entropies, by benchmarks/predictions.py: header, counts and the states of coders; what
# gaps lose, their table included; what a stream of symbols loses.
_HEADER, _PLACES, _SYMBOLS = 180.0, 1.007, 1.001
_DENSE = 1 / 16
_DITHERING = 1.0
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

    @staticmethod
    def of(v: Tensor) -> Magnitudes:
        """Those of a flat, non-zero vector; entries smaller than the histogram tells from zero count as zero."""
        return Magnitudes.in_order(magnitude_sums(v))

    @staticmethod
    def in_order(histogram: MagnitudeSums) -> Magnitudes:
        """The bins of a histogram that are not empty."""
        count, total, square = (x[:0:-1] for x in (histogram.count, histogram.total, histogram.square))
        kept = count > 0
        return Magnitudes(histogram.d, count[kept].astype(np.float64), total[kept], square[kept])

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


def _importance(statistics: Magnitudes, k: int) -> Choice:
    """Importance sampling of k entries: places at their entropy, a sign each, certain entries in full (A5)."""
    mean, d = statistics.mean, statistics.d
    inside = np.cumsum(statistics.count)
    # With the bins above `cut` certain, t = Σ rest / (k − r); the first cut at which the next bin is below t (A5.2).
    beyond = np.append(statistics.total.sum() - np.cumsum(statistics.total), 0.0)
    certain = np.append(0.0, inside)
    thresholds = np.append(statistics.total.sum(), beyond[:-1]) / np.maximum(k - certain, 1e-9)
    fits = (k > certain) & (np.append(mean, 0.0) <= thresholds)
    cut = int(fits.argmax()) if fits.any() else len(mean)
    head, t = float(certain[cut]), float(thresholds[cut])
    error = max(0.0, float(t * statistics.total[cut:].sum() - statistics.square[cut:].sum()))
    drawn = max(0.0, k - head)
    places = d * (_binary_entropy(drawn / d) + _binary_entropy(head / d))
    return Choice(Importance(k), _HEADER + _PLACES * places + drawn + 32 * head, error)


def _rounding(statistics: Magnitudes, levels: int) -> Choice:
    """Stochastic rounding to ‖v‖/levels: symbols at the entropy of their expected frequencies, exact to a bin (A7)."""
    step = math.sqrt(statistics.energy) / levels
    y, n = statistics.mean / step, statistics.count
    low = np.floor(y)
    # A bin wider than the step holds many symbols: about uniform within it.
    wide = np.maximum(1.0, y / _STEPS_AN_OCTAVE * math.log(2.0))
    fraction = np.where(wide > 1.0, 0.0, y - low)
    error = step**2 * float((n * np.where(wide > 1.0, 1 / 6, fraction * (1 - fraction))).sum())
    symbols, weights = np.append(low, low + 1), np.append(n * (1 - fraction), n * fraction)
    frequency = np.bincount(np.unique(symbols, return_inverse=True)[1], weights)
    zero = statistics.d - float(n.sum())
    if low[-1] == 0:
        zero, frequency = zero + float(frequency[0]), frequency[1:]
    frequency, nonzero, top = frequency[frequency > 0], statistics.d - zero, float(low[0]) + 1
    places = statistics.d * _binary_entropy(zero / statistics.d)
    magnitudes = float((frequency * np.log2(nonzero / frequency)).sum()) + float((n * np.log2(wide)).sum())
    if nonzero >= _DENSE * statistics.d:  # zeros, signs and magnitudes in one stream
        bits = _SYMBOLS * (places + nonzero + magnitudes) + table_bits(2 * top)
    else:
        bits = _PLACES * places + nonzero + _SYMBOLS * magnitudes + table_bits(top)
    return Choice(QSGD(levels), _HEADER + bits, error)


def _dearest_within(make: Callable[[int], Choice], most: int, budget: float) -> Choice | None:
    """The choice with the largest whole parameter whose predicted bits stay within the budget; bits grow with it."""
    low, high = 1, most
    if make(low).bits > budget:
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if make(middle).bits <= budget else (low, middle - 1)
    return make(low)


class Portfolio:
    """What each family can do for a flat, non-zero vector at any number of bits; its histograms are made once.

    Families: a kept head with a rotated tail in a trellis code of so many `states`, or in a dead zone where entries are
    few or bits many (A27, EDEN where no head pays), importance sampling (A5.5), stochastic rounding (A7) and, from a
    bit a coordinate, entropy-coded subtractive dithering (A26, A28.6).
    """

    def __init__(self, v: Tensor, states: Literal[8, 256] = 8) -> None:
        histogram, self.states = magnitude_sums(v), states
        self.v, self.magnitudes, self.heads = v, Magnitudes.in_order(histogram), Heads(histogram, v.dtype)

    def at(self, bits: float) -> list[Choice]:
        """The choices at `bits` a coordinate, the least predicted error first; there always is one."""
        budget = bits * len(self.v)
        rate = min(bits, _MOST_BITS)
        found = []
        if bits >= _DITHERING:
            for dithering in self._ditherings(rate):
                solved = dithering.solved(self.v)
                found.append(Choice(dithering, budget, solved.error, solved.encode))
        nonzero = int(self.magnitudes.count.sum())
        for family, most in ((_importance, nonzero), (_rounding, 1 << 24)):
            choice = _dearest_within(partial(family, self.magnitudes), most, budget)
            if choice is not None:
                found.append(choice)
        d, dtype = len(self.v), self.v.dtype
        for form in self._head_tails(rate):
            tail = form.tail
            # Below a certain budget rotated messages cannot be so short.
            if not found or tail.rate(budget, d, dtype) > tail.rate(0.0, d, dtype):
                head = self.heads.best(rate * d, tail)
                found.append(Choice(form, budget, head.error, partial(encode_with, head, self.v, rate)))
        return sorted(found, key=lambda choice: choice.error)

    def _ditherings(self, rate: float) -> list[ECDQ]:
        paths = ECDQ(rate, "trellis", self.states)
        return [paths, ECDQ(rate)] if len(self.v) < _FEW else [paths]

    def _head_tails(self, rate: float) -> list[HeadTail]:
        found = [HeadTail(rate, "trellis", self.states)] if rate <= RotatedCoder("trellis").most else []
        return [*found, HeadTail(rate)] if len(self.v) < _FEW or not found else found


def portfolio(v: Tensor, bits: float, states: Literal[8, 256] = 8) -> list[Choice]:
    """What each family can do for the flat, non-zero v at `bits` a coordinate, the least predicted error first."""
    return Portfolio(v, states).at(bits)


@register(
    "auto", example="auto(bits=0.5)", source="the portfolio of B14's strongest unbiased rows: A5, A7, A21.5, A26, A27"
)
@dataclass(frozen=True)
class Auto(Compressor):
    """For each vector, the unbiased compressor with the least predicted error at `bits` a coordinate; or, with `omega`
    instead, the fewest bits at which a predicted E‖C(x) − x‖² <= omega ‖x‖².

    It chooses among a kept head with a rotated tail, importance sampling, stochastic rounding and subtractive
    dithering, from histograms of magnitudes. The message describes itself, so the choice needs no bit of its own.
    `omega(d)` is the rotation's constant, which bounds every choice's prediction; `variance` is the prediction for what
    is chosen. Unbiased as far as what it chooses is: exactly, but where rotations are taken (see eden).

    `effort`: trellises of 8 states, or of 256 (best), which save another 6 to 10 % of the rotated tail's error and take
    some ten times as long to encode; decoding is the same.
    """

    bits: float | None = None
    target: float | None = field(default=None, metadata={"spec": "omega"})
    effort: Literal["fast", "best"] = "fast"

    unbiased = True
    random = True
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

    def choose(self, v: Tensor) -> Choice:
        """The choice for a flat, finite, non-zero vector."""
        if self.bits is not None:
            return portfolio(v, self.bits, self._states)[0]
        choices, goal = Portfolio(v, self._states), float(self.target or 0.0) * float(v.double().square().sum())
        low, high = math.log2(_LEAST_BITS), math.log2(_MOST_BITS)
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (low, middle) if choices.at(2.0**middle)[0].error <= goal else (middle, high)
        return choices.at(2.0**high)[0]

    def omega(self, d: int) -> float:
        if self.target is not None:
            return float(self.target)
        trellis = RotatedCoder("trellis", self._states)
        bits = float(self.bits or 0.0)
        return float((trellis if bits <= trellis.most else RotatedCoder()).omega(bits * d, d))

    def alpha(self, d: int) -> float:
        return max(0.0, 1 - self.omega(d))

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        choice = self.choose(v)
        return choice.encode(key) if choice.encode else choice.compressor._encode(v, key)

    def _variance(self, v: Tensor) -> float:
        return self.choose(v).compressor._variance(v)
