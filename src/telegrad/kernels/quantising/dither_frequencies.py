"""What a coarse law of the entries says about dithered symbols: their frequencies, given the dither (A26.3).

The law: the shares of |x| between edges that fall by 2^−¼ from the largest, uniform between edges, both signs alike.
Everything is in units of the step. Only additions, multiplications, divisions and comparisons in a fixed order, so
that both ends find the same integers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from telegrad.kernels.compilation import Loop

__all__ = [
    "CONTEXTS",
    "DISTANCES",
    "FURTHEST",
    "LAST_BUCKET",
    "SINGLE",
    "bucket_of",
    "contexts_of",
    "counted",
    "expected_bits",
    "expected_path_bits",
    "frequencies",
    "path_frequencies",
    "shortest_bits",
    "symbol_of",
    "tail_width",
]

CONTEXTS = 64
"""The dither's magnitude is told apart in so many cells; its sign is taken out of the symbol.

At low rates everything depends on how near the dither is to an edge of its range: near it the cells shrink with the
distance, four an octave; further than 1/16 they are 1/64 wide.
"""

FURTHEST = 1 << 20
"""Entries up to so many steps from zero are coded."""

SINGLE = 16
"""Magnitudes below it are coded one by one, larger ones in buckets."""
LAST_BUCKET = 320
"""Far above that of 2^40, the largest count there is."""
_BUCKETS = np.arange(LAST_BUCKET + 1)
_WIDTHS = np.where(_BUCKETS < SINGLE, 0, (_BUCKETS - SINGLE) // 8 + 1)
_SYMBOLS = np.where(_BUCKETS < SINGLE, _BUCKETS, (8 + (_BUCKETS - SINGLE) % 8) << _WIDTHS)
_MIDDLES = _SYMBOLS + ((1 << _WIDTHS) >> 1)
_QUARTER_OCTAVE = 0.8408964152537145  # 2^(−1/4), multiplied up so that no library's pow matters
DISTANCES = np.concatenate(
    [
        [0.0],
        np.cumprod(np.append(1 / 16, np.full(35, _QUARTER_OCTAVE)))[::-1],
        1 / 16 + np.arange(1, 29) / 64,
    ]
)
"""Distances from the edge, increasing, between which the cells lie."""

# Of each cell of the dither points inside it and its ends, which weigh little.
_INSIDE = np.array((0.0, 1 / 12, 1 / 4, 5 / 12, 7 / 12, 3 / 4, 11 / 12, 1.0))
_POINTS = 0.5 - (DISTANCES[:-1, None] + np.diff(DISTANCES)[:, None] * _INSIDE)
_WEIGHTS = np.array((1e-3, *([1.0] * 6), 1e-3))
_WEIGHTS /= _WEIGHTS.sum()
# Two do where only the mean over all cells counts.
_FEW_POINTS, _EVEN = np.ascontiguousarray(_POINTS[:, [2, 5]]), np.array((0.5, 0.5))
_TWICE_WIDE = 2 * np.diff(DISTANCES)
_ONE = np.uint64(1)


def bucket_of(magnitude: np.ndarray) -> np.ndarray:
    """Magnitudes below 16 one by one, larger ones in eight buckets an octave; what is below a bucket is sent raw."""
    width = tail_width_of(magnitude)
    return np.where(magnitude < SINGLE, magnitude, SINGLE + (width - 1) * 8 + ((magnitude >> width) & 7))


def tail_width_of(magnitude: np.ndarray) -> np.ndarray:
    """Raw bits of each magnitude: its length less four."""
    length = np.frexp(np.maximum(magnitude, 1).astype(np.float64))[1].astype(np.int64)
    return np.maximum(length - 4, 0)


def tail_width(bucket: np.ndarray) -> np.ndarray:
    """Raw bits below each bucket."""
    return _WIDTHS.take(bucket)


def symbol_of(bucket: np.ndarray) -> np.ndarray:
    """The smallest magnitude in each bucket."""
    return _SYMBOLS.take(bucket)


def counted(bucket: np.ndarray) -> np.ndarray:
    """The count that stands for all of each bucket, its middle."""
    return _MIDDLES.take(bucket)


def contexts_of(dither: np.ndarray) -> np.ndarray:
    """The cell of each dither in [−½, ½)."""
    return np.clip(np.searchsorted(DISTANCES, 0.5 - np.abs(dither), side="right") - 1, 0, CONTEXTS - 1)


def shortest_bits(n: int) -> int:
    """Bits of the frequencies for n symbols."""
    return 15 if n >= 1 << 14 else 12


def _shares(
    ratio: float, counts: np.ndarray, fall: float = _QUARTER_OCTAVE, roughly: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """P(symbol | cell of the dither), or so, and the number of raw bits below each symbol.

    `ratio`: the largest magnitude; `counts`: entries from the top edge down, the last from zero. Columns: 0, then +b
    and −b for the buckets b = 1, 2, …; a symbol is that of a positive dither.
    """
    edges, reached = _law_of(ratio, counts, fall)
    low, raw = _columns_up_to(int(ratio + 1.0) + 1)
    shares = np.empty((CONTEXTS, len(raw)))
    points, weights = (_FEW_POINTS, _EVEN) if roughly else (_POINTS, _WEIGHTS)
    slopes = (reached[1:] - reached[:-1]) / (edges[1:] - edges[:-1])
    _average(low, points, weights, edges, reached, slopes, shares)
    return shares, raw


@lru_cache(64)
def _columns_up_to(most: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the symbols of the buckets 1, 2, … up to that of `most`, and of the next, begin; and the raw bits of each
    column.
    """
    top = int(bucket_of(np.array([most]))[0])
    low = symbol_of(np.arange(1, top + 2)).astype(np.float64) - 0.5
    return low, np.append(0, np.repeat(tail_width(np.arange(1, top + 1)), 2))


def _law_of(ratio: float, counts: np.ndarray, fall: float) -> tuple[np.ndarray, np.ndarray]:
    """Increasing edges, and the shares of the magnitudes up to each."""
    edges, reached = np.zeros((2, len(counts) + 1))
    np.multiply(ratio, _powers(fall, len(counts)), out=edges[:0:-1])
    np.cumsum(counts[::-1].astype(np.float64), out=reached[1:])
    reached /= float(counts.sum())
    return edges, reached


@lru_cache(256)
def _powers(fall: float, count: int) -> np.ndarray:
    """1, fall, fall², …, by products one after another."""
    return np.cumprod(np.append(1.0, np.full(count - 1, fall)))


def _average_scalar(low: Any, dithers: Any, weights: Any, edges: Any, reached: Any, slopes: Any, shares: Any) -> None:
    furthest, last = edges[-1], np.uint64(len(slopes) - 1)
    beyond = np.empty((2, len(low)))
    for cell in range(len(shares)):
        row = shares[cell]
        row[:] = 0.0
        for point in range(len(weights)):
            dither, weight = dithers[cell, point], weights[point]
            for side in range(2):
                shift, tail = (dither if side else -dither), beyond[side]
                first = np.searchsorted(edges, min(low[0] + shift, furthest), side="right") - 1
                at = np.uint64(max(first, 0))
                at = min(at, last)
                for k in range(len(low)):
                    magnitude = min(low[k] + shift, furthest)
                    while at < last and edges[at + _ONE] <= magnitude:
                        at += _ONE
                    tail[k] = 0.5 - 0.5 * (reached[at] + (magnitude - edges[at]) * slopes[at])
            row[0] += weight * (1.0 - beyond[0, 0] - beyond[1, 0])
            for k in range(len(low) - 1):
                row[2 * k + 1] += weight * (beyond[0, k] - beyond[0, k + 1])
                row[2 * k + 2] += weight * (beyond[1, k] - beyond[1, k + 1])
        for k in range(len(row)):
            row[k] = max(row[k], 0.0)


def _average_reference(
    low: np.ndarray,
    dithers: np.ndarray,
    weights: np.ndarray,
    edges: np.ndarray,
    reached: np.ndarray,
    slopes: np.ndarray,
    shares: np.ndarray,
) -> None:
    shares[:] = 0.0
    for dither, weight in zip(dithers.T[:, :, None], weights, strict=True):
        above, below = (0.5 - 0.5 * _law(low + shift, edges, reached, slopes) for shift in (-dither, dither))
        shares[:, 0] += weight * (1.0 - above[:, 0] - below[:, 0])
        shares[:, 1::2] += weight * (above[:, :-1] - above[:, 1:])
        shares[:, 2::2] += weight * (below[:, :-1] - below[:, 1:])
    np.maximum(shares, 0.0, out=shares)


def _law(x: np.ndarray, edges: np.ndarray, reached: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """P(|entry| <= x), linear between the edges, for x >= 0."""
    magnitude = np.minimum(x, edges[-1])
    at = np.clip(np.searchsorted(edges, magnitude, side="right") - 1, 0, len(slopes) - 1)
    return reached[at] + (magnitude - edges[at]) * slopes[at]


_average = Loop(_average_scalar, _average_reference)


def frequencies(ratio: float, counts: np.ndarray, bits: int) -> np.ndarray:
    """Integer frequencies, int64, shape (CONTEXTS, K), at least 1, every row adding up to 2^bits."""
    shares, _ = _shares(ratio, counts)
    return _integers(shares, bits)


def _integers(shares: np.ndarray, bits: int) -> np.ndarray:
    room = (1 << bits) - shares.shape[1]
    total = np.cumsum(shares, axis=1)[:, -1]  # one after another: the order of a vectorised sum is not fixed
    # At least one each: where the law is coarse, entries may be what it excludes.
    frequency = 1 + np.floor(shares / total[:, None] * (room - 1)).astype(np.int64)
    frequency[np.arange(len(shares)), shares.argmax(1)] += (1 << bits) - frequency.sum(1)
    return frequency


def expected_bits(ratio: float, counts: np.ndarray, bits: int, true: np.ndarray | None = None) -> float:
    """Bits a symbol over a uniform dither, where the law of `counts` sets the frequencies.

    `true`: the entries' counts between edges that fall by 2^−1/16; without it the law is taken for true.
    """
    shares, raw = _shares(ratio, counts, roughly=True)
    frequency = _integers(shares, bits)
    if true is not None:
        shares, _ = _shares(ratio, true, _QUARTER_OCTAVE**0.25, roughly=True)
    shares = shares / shares.sum(1, keepdims=True)
    return float(((shares * (bits - np.log2(frequency) + raw)).sum(1) * _TWICE_WIDE).sum())


def path_frequencies(ratio: float, counts: np.ndarray, bits: int, density: np.ndarray) -> np.ndarray:
    """`frequencies` where errors are not uniform on [−½, ½] but have this density on [0, .1), [.1, .2), … and its
    mirror image: those of paths (A28.6).
    """
    return _integers(_path_shares(ratio, counts, density), bits)


def expected_path_bits(ratio: float, counts: np.ndarray, bits: int, true: np.ndarray, density: np.ndarray) -> float:
    """`expected_bits` of such errors."""
    prices = bits - np.log2(path_frequencies(ratio, counts, bits, density)) + _shares(ratio, counts)[1]
    joint = _path_shares(ratio, true, density, _QUARTER_OCTAVE**0.25) * 2 * np.diff(DISTANCES)[:, None]
    return float((joint * prices).sum() / joint.sum())


def _path_shares(ratio: float, counts: np.ndarray, density: np.ndarray, fall: float = _QUARTER_OCTAVE) -> np.ndarray:
    """The density of each symbol and the dither in the middle of each cell: r = symbol − dither is entry and error."""
    shares, _ = _shares(ratio, counts, fall)
    edges, reached = _law_of(ratio, counts, fall)
    slopes, fine = np.diff(reached) / np.diff(edges), len(density)
    # Symbols up to 15 have narrow cells, where the density shows.
    single = min(SINGLE - 1, shares.shape[1] // 2)
    column = np.arange(2 * single + 1)
    symbol = (column + 1) // 2 * np.where(column % 2 == 1, 1, -1)
    middle = (0.5 - (DISTANCES[:-1] + np.diff(DISTANCES) / 2))[:, None]
    at = np.arange(-fine * (single + 1), fine * (single + 1) + 1) / fine - middle
    mass = np.diff(np.sign(at) * _law(np.abs(at), edges, reached, slopes) / 2)
    found = np.zeros((CONTEXTS, len(column)))
    for number, share in enumerate([*density[::-1], *density]):  # in this order at both ends
        found += share * mass[:, fine * (symbol + single) + number]
    shares[:, : len(column)] = found
    return shares
