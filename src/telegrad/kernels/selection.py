"""Selection by magnitude without a sort: a histogram in one pass, and in a second the entries that are wanted.

Without its sign bit a float is an integer that grows with its magnitude, its *key*. A histogram counts the keys by
their first bits; from it the bins in which given ranks lie are known, the entries of these and of the bins between are
collected, and only within the two outer bins keys are compared one by one. Ranks go by decreasing magnitude, equal
magnitudes in the order of their indices. Counts are integers, so every number of threads finds the same.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import NonFiniteError
from telegrad.kernels.compiled import Loop, in_chunks
from telegrad.kernels.device import with_gpu_form
from telegrad.kernels.reference import descending_order

__all__ = ["INTEGERS", "SMALL", "MagnitudeHistogram", "first_bits", "keys_of", "largest_entries"]

SMALL = 4096
"""Vectors with fewer entries are sorted: that is as quick."""

INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
INTEGERS |= {torch.bfloat16: torch.int16, torch.float16: torch.int16}
"""What a float's bits are read as."""

_LONG = 1 << 20
_BITS, _BITS_OF_LONG = 13, 15  # of a key that tell its bin; short vectors are not worth clearing many bins
_BLOCK = 256


class MagnitudeHistogram:
    """How many entries of the flat, contiguous `v` lie in each bin of magnitudes; any float dtype, any device.

    `counts`: int64 numpy array of shape (bins,), from zero upwards. Bin b holds the magnitudes from smallest[b] to
    largest[b], float64: one value in 16-bit dtypes, a 32nd of an octave in float32 (of zero and the subnormals: an
    equal share), a quarter in float64; from 2^20 entries on a quarter of that. `with_sums`: also what `sums` needs,
    float64 excluded. Raises `NonFiniteError` where there is NaN or infinity: their keys lie above all others.
    """

    def __init__(self, v: Tensor, with_sums: bool = False) -> None:
        self.n, self._dtype = len(v), v.dtype
        self._keys: Any = keys_of(v)  # of the CPU, or of a GPU
        self._finer: dict[tuple[int, int], np.ndarray] = {}
        self._offsets: np.ndarray | int = 0
        if with_sums and self._keys.shift:
            both = self._keys.counted_with_offsets()
            self.counts, self._offsets = both[:, 0], both[:, 1]
        else:
            self.counts = self._keys.counted(0, self._keys.shift)
        if self.counts[_first_not_finite(v.dtype, self._keys.width) :].any():
            raise NonFiniteError(
                f"the tensor of {self.n} entries holds NaN or infinity; skip this step or lower the learning rate"
            )
        self.smallest, self.largest = _ends(v.dtype, self._keys.width)

    def sums(self) -> np.ndarray:
        """Σ |v_j| over each bin, float64: exact up to the rounding of one sum."""
        # Within a bin magnitudes are linear in the key: an integer sum of keys gives theirs.
        return self.counts * self.smallest + self._offsets * _steps(self._dtype, self._keys.width)

    def top(self) -> float:
        """The largest magnitude of the last bin that is not empty."""
        return float(self.largest[_place(self.counts, 0)[0]])

    def entries(self, first: int, last: int) -> Tensor:
        """The indices of all entries in the bins first … last, increasing, int64."""
        shift = self._keys.shift
        count = int(self.counts[first : last + 1].sum())
        return torch.from_numpy(self._keys.collected(first << shift, ((last + 1) << shift) - 1, count)[0])

    def ranked(self, start: int, stop: int) -> Tensor:
        """The indices of the entries of ranks start … stop − 1 (0 the largest), increasing, int64."""
        if start >= stop:
            return torch.zeros(0, dtype=torch.int64)
        keys = self._keys
        top = _Cut(0, keys.bits, 0, self.n) if start == 0 else self._cut(start)
        bottom = self._cut(stop - 1)
        if keys.exact:
            first = ((1 << keys.bits) - 1, 0) if start == 0 else (top.low, start - top.above)
            return keys.window(first, (bottom.low, stop - bottom.above), stop - start)
        if top.low == bottom.low and top.alone:
            return torch.from_numpy(keys.ties(top.low, start - top.above, stop - top.above))
        # A key so common that it fills a run alone is not collected: of its entries the right ones are counted off.
        high, low, count = top.high, bottom.low, bottom.above + bottom.count - top.above
        pieces = []
        if top.alone:
            high, count = top.low - 1, count - top.count
            pieces.append(keys.ties(top.low, start - top.above, top.count))
        if bottom.alone:
            low, count = bottom.low + 1, count - bottom.count
            pieces.append(keys.ties(bottom.low, 0, stop - bottom.above))
        where, found = keys.collected(low, high, count)
        # Where nothing is to be left out: above the keys of all numbers, and below all.
        first = ((1 << keys.bits) - 1, 0) if start == 0 or top.alone else _limit(found, top, start)
        last = (-1, 0) if bottom.alone else _limit(found, bottom, stop)
        chosen = np.empty(len(where), dtype=np.int64)
        chosen = chosen[: _keep(where, found, *first, *last, chosen)]
        return torch.from_numpy(np.sort(np.concatenate([chosen, *pieces])) if pieces else chosen)

    def _cut(self, rank: int) -> _Cut:
        """The narrowest run of keys around the entry of that rank that is worth counting."""
        keys, counts, cut = self._keys, self.counts, _Cut(0, self._keys.bits, 0, self.n)
        while True:
            number, above = _place(counts, rank - cut.above)
            shift, count = max(0, cut.shift - keys.width), int(counts[number])
            cut = _Cut(cut.low | number << shift, shift, cut.above + above, count)
            if shift == 0 or (count <= max(self.n >> 3, SMALL) and not keys.exact):
                return cut
            if (cut.low, shift) not in self._finer:
                self._finer[cut.low, shift] = keys.counted(cut.low, max(0, shift - keys.width), shift)
            counts = self._finer[cut.low, shift]


class _Cut:
    """The keys from `low` to `high` = low + 2^shift − 1: `above` entries have larger ones, `count` have these."""

    def __init__(self, low: int, shift: int, above: int, count: int) -> None:
        self.low, self.shift, self.above, self.count = low, shift, above, count
        self.high, self.alone = low + (1 << shift) - 1, shift == 0


def _limit(found: np.ndarray, cut: _Cut, rank: int) -> tuple[int, int]:
    """(key, ties): all with larger keys and the first `ties` of those with that key are ranked before `rank`."""
    key, ties = _find_limit(found, cut.low, cut.high, rank - cut.above)
    return int(key), int(ties)


def first_bits(v: Tensor) -> int:
    """How many first bits of a key tell its bin."""
    return _BITS if v.element_size() > 2 and len(v) < _LONG else _BITS_OF_LONG


class Keys:
    """A vector's magnitudes as integers of `bits` bits, and the passes over them."""

    exact = False
    """Whether a window's ends are found to the last bit by counting, and nothing more than it is collected."""

    def __init__(self, v: Tensor) -> None:
        self.bits, self.width, self._n = 8 * v.element_size() - 1, first_bits(v), len(v)
        self.shift = self.bits - self.width
        self._plain = v.detach().cpu().view(INTEGERS[v.dtype]).numpy()
        self._mask = self._plain.dtype.type((1 << self.bits) - 1)
        # For counting: an index without a sign needs no look at whether it counts from the end.
        self._unsigned = self._plain.view(f"u{self._plain.itemsize}")

    def counted(self, low: int, shift: int, within: int | None = None) -> np.ndarray:
        """The counts of key >> shift; of only the keys from `low` on to low + 2^within − 1, relative to low."""
        bins = 1 << ((self.bits if within is None else within) - shift)
        rows = 4 if self._n >= 1 << 16 else 1

        def work(_: int, start: int, stop: int) -> np.ndarray:
            counts = np.zeros((rows, bins), dtype=np.int64)
            if within is None:
                _count(self._unsigned[start:stop], *self._unsigned.dtype.type([self._mask, shift]), counts)
            else:
                _count_within(self._plain[start:stop], self._mask, low, low + (1 << within) - 1, shift, counts)
            return counts.sum(0) if rows > 1 else counts[0]

        return _summed(in_chunks(work, self._n))

    def counted_with_offsets(self) -> np.ndarray:
        """The counts of the keys' first bits and the sums of what is below these, int64, shape (bins, 2)."""
        shift, bins = self.shift, 1 << self.width
        rows = 2 if self._n >= 1 << 16 else 1

        def work(_: int, start: int, stop: int) -> np.ndarray:
            totals = np.zeros((rows, bins, 2), dtype=np.int64)
            mask, low = self._unsigned.dtype.type([self._mask, (1 << shift) - 1])
            _count_with_offsets(self._unsigned[start:stop], mask, self._unsigned.dtype.type(shift), low, totals)
            return totals.sum(0) if rows > 1 else totals[0]

        return _summed(in_chunks(work, self._n))

    def collected(self, low: int, high: int, most: int) -> tuple[np.ndarray, np.ndarray]:
        """(indices, keys) of the entries with keys from low to high, of which there are `most`."""

        def work(_: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            room = min(most, stop - start) + 1  # the loop writes one place ahead
            where, keys = np.empty(room, dtype=np.int64), np.empty(room, dtype=self._plain.dtype)
            n = _collect(self._plain[start:stop], self._mask, low, high, start, where, keys)
            return where[:n], keys[:n]

        parts = in_chunks(work, self._n)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def ties(self, key: int, first: int, last: int) -> np.ndarray:
        """The indices of the entries with that very key, from the `first` to before the `last` of them."""
        where = np.empty(last - first, dtype=np.int64)
        _collect_ties(self._plain, self._mask, key, first, where)
        return where


@with_gpu_form("selection")
def keys_of(v: Tensor) -> Keys:
    """The passes over v's magnitudes, where v lies."""
    return Keys(v)


def _summed(parts: list[np.ndarray]) -> np.ndarray:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


@cache
def _ends(dtype: torch.dtype, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest magnitude of every bin; those of infinity and NaN stay empty, and end in numbers."""
    integer = INTEGERS[dtype]
    shift = torch.iinfo(integer).bits - 1 - width
    first = torch.arange(1 << width, dtype=torch.int64) << shift
    ends = (keys.to(integer).view(dtype).double().numpy() for keys in (first, first + ((1 << shift) - 1)))
    smallest, largest = (np.where(np.isfinite(end), end, torch.finfo(dtype).max) for end in ends)
    return smallest, largest


@cache
def _first_not_finite(dtype: torch.dtype, width: int) -> int:
    """The bin that begins with infinity's key."""
    infinity = int(torch.tensor(torch.inf, dtype=dtype).view(INTEGERS[dtype]))
    return infinity >> (torch.iinfo(INTEGERS[dtype]).bits - 1 - width)


@cache
def _steps(dtype: torch.dtype, width: int) -> np.ndarray:
    """By how much magnitudes grow from key to key, in every bin."""
    smallest, largest = _ends(dtype, width)
    shift = torch.iinfo(INTEGERS[dtype]).bits - 1 - width
    return (largest - smallest) / max(1, (1 << shift) - 1)


def largest_entries(v: Tensor, k: int) -> Tensor:
    """The indices of the k entries of largest magnitude, increasing, on the CPU; among equal magnitudes the lowest
    indices win.
    """
    if k >= len(v):
        return torch.arange(len(v))
    if len(v) < SMALL:
        return descending_order(v.cpu())[:k].sort().values
    return MagnitudeHistogram(v).ranked(0, k)


def _count_scalar(keys, mask, shift, counts):  # type: ignore[no-untyped-def]
    """Four rows of counts where there are many keys: adding to one place over and over waits for itself."""
    n = len(keys)
    if len(counts) == 1:
        for i in range(n):
            counts[0, (keys[i] & mask) >> shift] += 1
        return
    whole = n // 4 * 4
    for i in range(0, whole, 4):
        counts[0, (keys[i] & mask) >> shift] += 1
        counts[1, (keys[i + 1] & mask) >> shift] += 1
        counts[2, (keys[i + 2] & mask) >> shift] += 1
        counts[3, (keys[i + 3] & mask) >> shift] += 1
    for i in range(whole, n):
        counts[0, (keys[i] & mask) >> shift] += 1


def _count_reference(keys: np.ndarray, mask: Any, shift: Any, counts: np.ndarray) -> None:
    counts[0] += np.bincount(((keys & mask) >> shift).astype(np.int64), minlength=counts.shape[1])


def _count_within_scalar(keys, mask, low, high, shift, counts):  # type: ignore[no-untyped-def]
    row = 0
    for i in range(len(keys)):
        key = keys[i] & mask
        if key >= low and key <= high:
            counts[row, (key - low) >> shift] += 1
            row = (row + 1) & (len(counts) - 1)


def _count_within_reference(keys: np.ndarray, mask: Any, low: int, high: int, shift: int, counts: np.ndarray) -> None:
    plain = keys & mask
    inside = plain[(plain >= low) & (plain <= high)]
    counts[0] += np.bincount((inside - low) >> shift, minlength=counts.shape[1])


def _count_with_offsets_scalar(keys, mask, shift, low, totals):  # type: ignore[no-untyped-def]
    n, last = len(keys), len(totals) - 1
    whole = n // 2 * 2
    for i in range(0, whole, 2):
        key = keys[i] & mask
        total = totals[0, key >> shift]
        total[0] += 1
        total[1] += key & low
        key = keys[i + 1] & mask
        total = totals[last, key >> shift]
        total[0] += 1
        total[1] += key & low
    if whole < n:
        key = keys[whole] & mask
        totals[0, key >> shift, 0] += 1
        totals[0, key >> shift, 1] += key & low


def _count_with_offsets_reference(keys: np.ndarray, mask: Any, shift: Any, low: Any, totals: np.ndarray) -> None:
    plain = (keys & mask).astype(np.int64)
    bins, below = plain >> int(shift), plain & int(low)
    totals[0, :, 0] += np.bincount(bins, minlength=totals.shape[1])
    np.add.at(totals[0, :, 1], bins, below)


def _collect_scalar(keys, mask, low, high, start, where, found):  # type: ignore[no-untyped-def]
    """Mark a block without a branch, then look at its marks eight at a time: most entries are not wanted.

    It never writes beyond `where`, even where the tensor is changed by others meanwhile.
    """
    marks = np.zeros(_BLOCK, dtype=np.uint8)
    eights, at, last = marks.view(np.uint64), 0, len(where) - 1
    for begin in range(0, len(keys), _BLOCK):
        block = keys[begin : begin + _BLOCK]
        for j in range(len(block)):
            key = block[j] & mask
            marks[j] = (key >= low) & (key <= high)
        for eight in range((len(block) + 7) // 8):
            if eights[eight]:
                for j in range(8 * eight, min(8 * eight + 8, len(block))):
                    where[at] = start + begin + j
                    found[at] = block[j] & mask
                    at = min(at + marks[j], last)
    return at


def _collect_reference(
    keys: np.ndarray, mask: Any, low: int, high: int, start: int, where: np.ndarray, found: np.ndarray
) -> int:
    plain = keys & mask
    chosen = np.flatnonzero((plain >= low) & (plain <= high))
    where[: len(chosen)], found[: len(chosen)] = chosen + start, plain[chosen]
    return len(chosen)


def _place_scalar(counts, rank):  # type: ignore[no-untyped-def]
    """The bin of the entry of that rank, from the last bin downwards, and how many entries lie above the bin."""
    above, number = 0, len(counts) - 1
    while number > 0 and above + counts[number] <= rank:
        above += counts[number]
        number -= 1
    return number, above


def _place_reference(counts: np.ndarray, rank: int) -> tuple[int, int]:
    reached = np.cumsum(counts[::-1])
    place = int(np.searchsorted(reached, rank, side="right"))
    number = len(counts) - 1 - place
    return number, int(reached[place] - counts[number])


def _find_limit_scalar(found, low, high, place):  # type: ignore[no-untyped-def]
    """Of the keys from low to high: the one at that place from the largest, by quickselect, and how many of its equals
    are before it; (low − 1, 0) where they end at that place.
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


def _find_limit_reference(found: np.ndarray, low: int, high: int, place: int) -> tuple[int, int]:
    mine = found[(found >= low) & (found <= high)]
    if place == len(mine):
        return low - 1, 0
    at = len(mine) - 1 - place
    key = int(np.partition(mine, at)[at])
    return key, place - int(np.count_nonzero(mine > key))


def _keep_scalar(where, found, first, first_ties, last, last_ties, out):  # type: ignore[no-untyped-def]
    """Of the collected: those not ranked before (first, first_ties), but before (last, last_ties)."""
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
        out[at] = where[i]
        at += wanted
    return at


def _keep_reference(
    where: np.ndarray, found: np.ndarray, first: int, first_ties: int, last: int, last_ties: int, out: np.ndarray
) -> int:
    tie_number = {key: np.cumsum(found == key) - 1 for key in (first, last)}
    before_first = (found > first) | ((found == first) & (tie_number[first] < first_ties))
    before_last = (found > last) | ((found == last) & (tie_number[last] < last_ties))
    chosen = where[before_last & ~before_first]
    out[: len(chosen)] = chosen
    return len(chosen)


def _collect_ties_scalar(keys, mask, key, first, where):  # type: ignore[no-untyped-def]
    marks, seen, at = np.zeros(_BLOCK, dtype=np.uint8), 0, 0
    for begin in range(0, len(keys), _BLOCK):
        block, count = keys[begin : begin + _BLOCK], 0
        for j in range(len(block)):
            marks[j] = (block[j] & mask) == key
            count += marks[j]
        if seen + count > first:
            for j in range(len(block)):
                if marks[j]:
                    if seen >= first:
                        where[at] = begin + j
                        at += 1
                        if at == len(where):
                            return
                    seen += 1
        else:
            seen += count


def _collect_ties_reference(keys: np.ndarray, mask: Any, key: int, first: int, where: np.ndarray) -> None:
    where[:] = np.flatnonzero((keys & mask) == key)[first : first + len(where)]


_count = Loop(_count_scalar, _count_reference)
_count_within = Loop(_count_within_scalar, _count_within_reference)
_count_with_offsets = Loop(_count_with_offsets_scalar, _count_with_offsets_reference)
_collect = Loop(_collect_scalar, _collect_reference)
_place = Loop(_place_scalar, _place_reference)
_find_limit = Loop(_find_limit_scalar, _find_limit_reference)
_keep = Loop(_keep_scalar, _keep_reference)
_collect_ties = Loop(_collect_ties_scalar, _collect_ties_reference)
