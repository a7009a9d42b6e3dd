"""What each family of compressors is predicted to cost and to err on a vector, and the bounds that hold for all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from telegrad.compressors.base import Compressor, Encoded
from telegrad.compressors.eden import Eden
from telegrad.compressors.eden_rate import rotated_omega, shortest_rotated
from telegrad.compressors.importance import Importance
from telegrad.compressors.message_lengths import head_bits, places_bits, stream_bits
from telegrad.compressors.qsgd import QSGD
from telegrad.compressors.rotated_coder import RotatedCoder
from telegrad.kernels.rotation.blocks import block_sizes
from telegrad.portfolio.magnitudes import Magnitudes
from telegrad.random import Key
from telegrad.wire.bits import SCALARS, varint_nbytes
from telegrad.wire.entropy_coded import table_bits

__all__ = ["FIXED", "Choice", "dearest_within", "fixed_rotation", "importance", "least_bound", "rounding"]

_STEPS_AN_OCTAVE = 64
# What messages have beyond entropies, by benchmarks/predictions.py: header, counts and the states of coders; what
# gaps lose, their table included; what a stream of symbols loses.
_HEADER, _PLACES, _SYMBOLS = 180.0, 1.007, 1.001
_DENSE = 1 / 16
_SHORT = 16384  # entries: below, the parts of messages are priced as they are coded
FIXED = 2048
"""Entries below which EDEN of fixed bits is a family of its own."""
_WORTH_CODING, _PADDING = 512, 3.5


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


def importance(statistics: Magnitudes, k: int) -> Choice:
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


def rounding(statistics: Magnitudes, levels: int) -> Choice:
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


def fixed_rotation(d: int, dtype: torch.dtype, budget: float) -> Choice:
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


def dearest_within(make: Callable[[int], Choice], most: int, budget: float) -> Choice:
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


def least_bound(budget: float, d: int, states: Literal[8, 256]) -> float:
    """The least constant of the choices that fit into `budget` bits whatever the vector is; if none, the largest of the
    shortest ones. Scales and values may have 64 bits.
    """
    constants = []
    if budget >= shortest_rotated(d, torch.float64):
        constants.append(float(rotated_omega(budget, d, torch.float64)))
        if budget <= RotatedCoder("trellis").most * d:
            constants.append(float(RotatedCoder("trellis", states).omega(budget, d, torch.float64)))
    if d < FIXED and (fixed := fixed_rotation(d, torch.float64, budget)).bits <= budget:
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
    return min(constants) if constants else max(d - 1.0, fixed_rotation(d, torch.float64, 0.0).error)
