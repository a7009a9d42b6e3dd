"""How long parts of messages are before they are packed: streams of integers and lists of places, from expected counts.

What `telegrad.wire.integers` chooses among, at the same prices: what is predicted for a message of few entries is not
its entropy, but what its codes, tables and states take.
"""

from __future__ import annotations

import math

import numpy as np

from telegrad.kernels.coding.bucketed_integers import bucketed
from telegrad.wire.bits import varint_nbytes
from telegrad.wire.entropy_coded import ALPHABET, coded_bits
from telegrad.wire.integers import FEW, WORTH_CODING

__all__ = ["head_bits", "places_bits", "stream_bits"]

_PADDING = 3.5  # bits, on average, to a whole byte


def head_bits(d: int) -> float:
    """Of a message of a flat vector of d entries and one term: version, shape, level, numbers, kinds and checksum."""
    return 8 * (9 + varint_nbytes(d))


def stream_bits(symbols: np.ndarray, counts: np.ndarray) -> float:
    """The expected length of a stream in which these integers, increasing, are expected so often."""
    n = float(counts.sum())
    # What is expected less than once in two such streams is mostly not there.
    kept = np.cumsum(counts[::-1])[::-1] >= 0.5
    symbols, counts = symbols[kept].astype(np.int64), counts[kept]
    if not len(symbols) or symbols[-1] == 0:
        return 8.0
    top, width = int(symbols[-1]), int(symbols[-1]).bit_length()
    golomb = min(float(counts @ (symbols >> b)) + n * (b + 1) for b in range(width + 1))
    shortest = min(golomb, n * width) + _PADDING
    if n >= WORTH_CODING:
        if top < ALPHABET:
            shortest = min(shortest, coded_bits(np.bincount(symbols, counts)))
        if top >= FEW:
            which, below = bucketed(symbols)
            shortest = min(shortest, float(counts @ below) + coded_bits(np.bincount(which, counts)))
    return 8.0 + shortest


def places_bits(d: int, n: float) -> float:
    """The expected length of a list of about n places among d, drawn evenly, with their number."""
    share = min(1.0, n / d)
    if n < 0.5 or share == 1.0:
        return 16.0
    # Gaps are geometric: a Golomb-Rice code of parameter b takes b + 1 / (1 − (1 − share)^(2^b)) bits (0.1).
    golomb = n * min(b + 1 / (1 - (1 - share) ** (1 << b)) for b in range(32))
    if n >= WORTH_CODING:
        entropy = -d * (share * math.log2(share) + (1 - share) * math.log2(1 - share))
        golomb = min(golomb, 1.005 * entropy + 230.0)
    return 8.0 * varint_nbytes(round(n)) + 8.0 + golomb + _PADDING
