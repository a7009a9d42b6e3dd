"""The loops of a window of ranks: where ranks lie in a histogram, and which of the entries that it collected are meant.

Ranks go by decreasing magnitude, equal magnitudes in the order of their indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from telegrad.kernels.compilation import Loop
from telegrad.kernels.selection.keys import collect_scalar, count_scalar

__all__ = ["counts_scalar", "limit_of", "place", "trim", "window", "window_scalar"]


def _place_scalar(counts, last, rank):  # type: ignore[no-untyped-def]
    """The bin of the entry of that rank, counted from bin `last` downwards, and how many entries lie above the bin."""
    above, number = 0, last
    while number > 0 and above + counts[number] <= rank:
        above += counts[number]
        number -= 1
    return number, above


def _place_reference(counts: np.ndarray, last: int, rank: int) -> tuple[int, int]:
    reached = np.cumsum(counts[last::-1])
    place = int(np.searchsorted(reached, rank, side="right"))
    number = last - place
    return number, int(reached[place] - counts[number])


def limit_of(found, low, high, place):  # type: ignore[no-untyped-def]
    """Of the keys from low to high the one at that place from the largest, by quickselect, and how many of its equals
    are before it: all with larger keys, and so many with this one, are ranked before the place. (low − 1, 0) where they
    end there.
    """
    mine, n = np.empty(len(found), dtype=found.dtype), 0
    for i in range(len(found)):
        mine[n] = found[i]
        n += found[i] >= low and found[i] <= high
    if place == n:
        return low - 1, 0
    left, right, wanted = 0, n - 1, n - 1 - place
    while left < right:
        pivot, i, j = mine[(left + right) >> 1], left, right
        while i <= j:
            while mine[i] < pivot:
                i += 1
            while mine[j] > pivot:
                j -= 1
            if i <= j:
                mine[i], mine[j] = mine[j], mine[i]
                i, j = i + 1, j - 1
        if wanted <= j:
            right = j
        elif wanted >= i:
            left = i
        else:
            break
    key, larger = np.int64(mine[wanted]), 0
    for i in range(n):
        larger += mine[i] > key
    return key, place - larger


def _trim_scalar(where, found, first_low, first_high, before, last_low, last_high, until):  # type: ignore[no-untyped-def]
    """Leave out of the collected: of those with keys from first_low to first_high the `before` that rank first; of
    those from last_low to last_high all but the `until` that do. How many are left, at the start of `where`.
    """
    first, first_ties = first_high, 0
    if before > 0:
        first, first_ties = limit_of(found, first_low, first_high, before)
    last, last_ties = limit_of(found, last_low, last_high, until)
    at, firsts, lasts = 0, 0, 0
    for i in range(len(where)):
        key = found[i]
        wanted = key < first and key > last
        if key == first:
            wanted = firsts >= first_ties and (key > last or lasts < last_ties)
            firsts += 1
        elif key == last:
            wanted = lasts < last_ties
        if key == last:
            lasts += 1
        where[at] = where[i]
        at += wanted
    return at


def _trim_reference(
    where: np.ndarray,
    found: np.ndarray,
    first_low: int,
    first_high: int,
    before: int,
    last_low: int,
    last_high: int,
    until: int,
) -> int:
    ranked = np.argsort(-found.astype(np.int64), kind="stable")
    keys, kept = found[ranked], np.ones(len(found), dtype=bool)
    kept[ranked[(keys >= first_low) & (keys <= first_high)][:before]] = False
    kept[ranked[(keys >= last_low) & (keys <= last_high)][until:]] = False
    chosen = where[kept]
    where[: len(chosen)] = chosen
    return len(chosen)


def window_scalar(keys, mask, shift, counts, last, start, stop, common):  # type: ignore[no-untyped-def]
    """The indices of the entries of ranks start … stop − 1, increasing: all steps in one call, for short vectors. None
    where a bin at an end has more than `common` entries.
    """
    upper, above = _place_scalar(counts, last, start)
    lower, over = _place_scalar(counts, last, stop - 1)
    if max(counts[upper], counts[lower]) > common:
        return np.empty(0, dtype=np.int64)
    low, high, room = lower << shift, ((upper + 1) << shift) - 1, over - above + counts[lower] + 1
    where, found = np.empty(room, dtype=np.int64), np.empty(room, dtype=keys.dtype)
    n = collect_scalar(keys, mask, low, high, 0, where, found)
    bottom = low + (1 << shift) - 1
    n = _trim_scalar(where[:n], found[:n], upper << shift, high, start - above, low, bottom, stop - over)
    return where[:n]


def _window_reference(
    keys: np.ndarray, mask: Any, shift: int, counts: np.ndarray, last: int, start: int, stop: int, common: int
) -> np.ndarray:
    (upper, _), (lower, _) = _place_reference(counts, last, start), _place_reference(counts, last, stop - 1)
    if max(counts[upper], counts[lower]) > common:
        return np.empty(0, dtype=np.int64)
    return np.sort(np.argsort(-(keys & mask).astype(np.int64), kind="stable")[start:stop])


def counts_scalar(v, width, infinite):  # type: ignore[no-untyped-def]
    """The histogram of float32 numbers, shape (1, 2^width), and its last bin that is not empty; −1 for that where there
    is NaN or infinity.
    """
    counts = np.zeros((1, 1 << width), dtype=np.int64)
    count_scalar(v.view(np.uint32), np.uint32(0x7FFFFFFF), np.uint32(31 - width), counts)
    top = _place_scalar(counts[0], len(counts[0]) - 1, 0)[0]
    return counts, top if top < infinite else -1


place = Loop(_place_scalar, _place_reference)
trim = Loop(_trim_scalar, _trim_reference, uses=[limit_of])
window = Loop(window_scalar, _window_reference, uses=[_place_scalar, collect_scalar, _trim_scalar])
