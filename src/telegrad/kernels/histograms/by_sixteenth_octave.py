"""How many entries lie in each sixteenth of an octave below the largest magnitude."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import in_chunks

__all__ = ["magnitude_histogram"]

_FINE = 800
_BITS = 52
_TILE = 512
_FEW = 1 << 15


def _histogram_scalar(bits: Any, mask: Any, shift: Any, table: Any, x: Any, top: float, counts: Any) -> None:
    for i in range(len(bits)):
        magnitude = np.uint64(bits[i] & mask)
        # Four tables, so that equal neighbours do not wait for each other.
        counts[np.uint64(i & 3), (table[magnitude >> shift] + magnitude) >> shift] += 1


def _histogram_reference(
    bits: np.ndarray, mask: Any, shift: Any, table: np.ndarray, x: np.ndarray, top: float, counts: np.ndarray
) -> None:
    counts[0, ::-1] += np.bincount(_place(np.abs(x.astype(np.float64)) / top), minlength=_FINE)


def _place(ratio: np.ndarray) -> np.ndarray:
    """⌊−16 log2(ratio)⌋, up to 799, by the leading bits of 2^(j/16), j = 0 … 15."""
    bits = ratio.view(np.int64)
    above = np.searchsorted(_EDGES, bits & ((1 << _BITS) - 1), side="left")
    return np.minimum(16 * (1023 - (bits >> _BITS)) - above, _FINE - 1)


_EDGES = (2.0 ** (np.arange(16) / 16)).view(np.int64) & ((1 << _BITS) - 1)


def _edges(top: float, dtype: Any) -> np.ndarray:
    """The least magnitudes of places 798, 797, … 0 below `top`, as the bits of that dtype."""
    near = (top * 2.0 ** (-np.arange(1, 17) / 16)).astype(dtype)
    # The quotient's rounding decides: it is tried around each edge.
    tried = (near.view(f"i{near.itemsize}") + np.arange(-8, 9)[:, None]).astype(f"i{near.itemsize}").view(dtype)
    inside = _place(tried.astype(np.float64) / top) < np.arange(1, 17)
    octave = tried[inside.argmax(0), np.arange(16)].astype(np.float64)
    edges = (octave * 0.5 ** np.arange(50)[:, None]).reshape(-1)[: _FINE - 1]
    return edges[::-1].astype(dtype).view(f"u{near.itemsize}").astype(np.int64)


def _table(top: float, dtype: Any, shift: int) -> np.ndarray:
    """For the leading bits of each magnitude what to add to it, so that the number of edges up to it comes first."""
    low = np.arange(1 << 8 * np.dtype(dtype).itemsize - 1 - shift, dtype=np.int64) << shift
    edges = np.append(_edges(top, dtype), np.iinfo(np.int64).max)
    passed = np.searchsorted(edges, low, side="right")
    left = np.minimum(edges[passed] - low, 1 << shift)  # at most one edge follows: they are further apart
    return ((passed + 1 << shift) - left - low).astype(np.uint64)


def _few_scalar(x: Any, top: float, edges: Any, before: Any, counts: Any) -> None:
    ratio = np.empty(_TILE)
    bits = ratio.view(np.int64)
    for low in range(0, len(x), _TILE):
        part = x[low : low + _TILE]
        for i in range(len(part)):
            ratio[i] = abs(np.float64(part[i])) / top
        for i in range(len(part)):
            mantissa = bits[i] & ((1 << _BITS) - 1)
            slot = mantissa >> (_BITS - 5)
            above = before[slot] + np.int64(mantissa > edges[slot])
            counts[min(16 * (1023 - (bits[i] >> _BITS)) - above, _FINE - 1)] += 1


def _few_reference(x: np.ndarray, top: float, edges: np.ndarray, before: np.ndarray, counts: np.ndarray) -> None:
    counts += np.bincount(_place(np.abs(x.astype(np.float64)) / top), minlength=_FINE)


_SLOTS = np.arange(32, dtype=np.int64) << (_BITS - 5)
_BEFORE = np.searchsorted(_EDGES, _SLOTS, side="left")
_WITHIN = np.append(_EDGES, 1 << _BITS)[_BEFORE]
"""Of each 32nd of the mantissas the edges below it, and the one edge that may lie in it."""


def magnitude_histogram(v: Tensor, top: float) -> np.ndarray:
    """How many entries have ⌊−16 log2(|v_j| / top)⌋ = 0 … 799, the last and beyond; `top` the largest magnitude.

    Which place a magnitude has shows in its bits: the leading ones, down to a 32nd of an octave, say it but for one
    edge. For few entries a quotient each costs less than a table of all leading bits.
    """
    x = plain(v)
    if len(x) < _FEW:
        found = np.zeros(_FINE, dtype=np.int64)
        _few(x, top, _WITHIN, _BEFORE, found)
        return found
    if top < 2.0**52 * np.finfo(x.dtype).tiny:  # subnormal numbers have fewer bits
        x, top = x.astype(np.float64) * 2.0**512, top * 2.0**512
    unsigned, shift = np.dtype(f"u{x.itemsize}").type, np.finfo(x.dtype).nmant - 5
    table, mask = _table(top, x.dtype, shift), unsigned(np.iinfo(unsigned).max >> 1)

    def work(_: int, start: int, stop: int) -> np.ndarray:
        counts, part = np.zeros((4, _FINE), dtype=np.int64), x[start:stop]
        _histogram(part.view(unsigned), mask, np.uint64(shift), table, part, top, counts)
        return counts.sum(0)[::-1]

    return np.sum(in_chunks(work, len(x)), axis=0)


_few = Loop(_few_scalar, _few_reference)
_histogram = Loop(_histogram_scalar, _histogram_reference)
