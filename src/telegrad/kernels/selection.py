"""Selection by magnitude without a sort: a histogram in one pass, and in a second the entries that are wanted.

A histogram counts the keys (`telegrad.kernels.keys`) by their first bits; from it the bins in which given ranks lie
are known, the entries of these and of the bins between are collected, and only within the two outer bins keys are
compared one by one. Ranks go by decreasing magnitude, equal magnitudes in the order of their indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import NonFiniteError
from telegrad.kernels.bins import bins_of
from telegrad.kernels.compiled import ONE_CHUNK, Loop, in_blocks
from telegrad.kernels.device import on_gpu
from telegrad.kernels.keys import collect_scalar, count_scalar, first_bits, keys_of
from telegrad.kernels.magnitudes import plain
from telegrad.kernels.reference import descending_order
from telegrad.kernels.thresholds import bin_sum, threshold_bin

__all__ = ["SMALL", "MagnitudeHistogram", "among_largest", "largest_entries"]

_BLOCK = 1 << 15  # entries that are looked at together
_SHORT = 16  # a list of one in so many of the entries, or of fewer, is short and quickly made

SMALL = 4096
"""Vectors with fewer entries are sorted: that is as quick."""


class MagnitudeHistogram:
    """How many entries of the flat, contiguous `v` lie in each bin of magnitudes; any float dtype, any device.

    `counts`: int64 numpy array of shape (bins,), from zero upwards. Bin b holds the magnitudes from smallest[b] to
    largest[b], float64: one value in 16-bit dtypes, a 32nd of an octave in float32 (of zero and the subnormals: an
    equal share), a quarter in float64; from 2^20 entries on a quarter of that. `with_sums`: also what `sums` needs,
    float64 excluded. Raises `NonFiniteError` where there is NaN or infinity: their keys lie above all others.
    """

    def __init__(self, v: Tensor, with_sums: bool = False) -> None:
        self.n = v.numel()
        self._common = common_from(self.n)
        self._keys: Any = keys_of(v)  # of the CPU, or of a GPU
        self._finer: dict[tuple[int, int], np.ndarray] = {}
        if with_sums and self._keys.shift:
            both = self._keys.counted_with_offsets()
            self.counts, self._offsets = both[:, 0], both[:, 1]
        else:
            self.counts = self._keys.counted(0, self._keys.shift)
            self._offsets = self.counts[:0]
        self._top = int(_place(self.counts, len(self.counts) - 1, 0)[0])
        self._bins = bins_of(v.dtype, self._keys.width)
        if self._top >= self._bins.infinite:
            raise NonFiniteError(
                f"the tensor of {self.n} entries holds NaN or infinity; skip this step or lower the learning rate"
            )
        self.smallest, self.largest = self._bins.smallest, self._bins.largest

    def sums(self) -> np.ndarray:
        """Σ |v_j| over each bin, float64: exact up to the rounding of one sum."""
        return np.asarray(bin_sum(self.counts, *self._linear()))

    def threshold_bin(self, k: float) -> tuple[int, int, float, float]:
        """`telegrad.kernels.thresholds.threshold_bin` of these bins."""
        return threshold_bin(self.counts, *self._linear(), k)

    def _linear(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `bin_sum` takes beside the counts."""
        offsets = self._offsets if len(self._offsets) else np.zeros_like(self.counts)
        return offsets, self.smallest, self._bins.steps

    def top(self) -> float:
        """The largest magnitude of the last bin that is not empty."""
        return float(self.largest[self._top])

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
        if self.n < ONE_CHUNK and len(chosen := self.short_window(start, stop)):
            return torch.from_numpy(chosen)
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
        before = (high, high, 0) if top.alone else (top.low, top.high, start - top.above)
        until = (low, low - 1, 0) if bottom.alone else (bottom.low, bottom.high, stop - bottom.above)
        chosen = where[: _trim(where, found, *before, *until)]
        return torch.from_numpy(np.sort(np.concatenate([chosen, *pieces])) if pieces else chosen)

    def short_window(self, start: int, stop: int) -> np.ndarray:
        """`ranked` by one thread in one go; none where that is not to be had: on a GPU, for 16-bit floats, and where
        many entries share a bin at an end.
        """
        keys = self._keys
        if keys.exact or not keys.shift:
            return np.empty(0, dtype=np.int64)
        found: np.ndarray = _window(
            keys.plain, keys.mask, keys.shift, self.counts, self._top, start, stop, self._common
        )
        return found

    def _cut(self, rank: int) -> _Cut:
        """The narrowest run of keys around the entry of that rank that is worth counting."""
        keys, counts, last, cut = self._keys, self.counts, self._top, _Cut(0, self._keys.bits, 0, self.n)
        while True:
            number, above = _place(counts, last, rank - cut.above)
            shift, count = max(0, cut.shift - keys.width), int(counts[number])
            cut = _Cut(cut.low | number << shift, shift, cut.above + above, count)
            if shift == 0 or (count <= self._common and not keys.exact):
                return cut
            if (cut.low, shift) not in self._finer:
                self._finer[cut.low, shift] = keys.counted(cut.low, max(0, shift - keys.width), shift)
            counts = self._finer[cut.low, shift]
            last = len(counts) - 1


class _Cut:
    """The keys from `low` to `high` = low + 2^shift − 1: `above` entries have larger ones, `count` have these."""

    def __init__(self, low: int, shift: int, above: int, count: int) -> None:
        self.low, self.shift, self.above, self.count = low, shift, above, count
        self.high, self.alone = low + (1 << shift) - 1, shift == 0


def largest_entries(v: Tensor, k: int) -> Tensor:
    """The indices of the k entries of largest magnitude, increasing, on the CPU; among equal magnitudes the lowest
    indices win.
    """
    if k >= v.numel():
        return torch.arange(v.numel())
    if v.numel() < SMALL:
        return descending_order(v.cpu())[:k].sort().values
    if v.numel() < ONE_CHUNK and v.dtype == torch.float32 and v.is_cpu and not on_gpu(v):
        bins = bins_of(v.dtype, first_bits(v))
        if len(chosen := _largest(v.numpy(), bins.width, bins.infinite, k, common_from(v.numel()))):
            return torch.from_numpy(chosen)
    return MagnitudeHistogram(v).ranked(0, k)


def among_largest(v: Tensor, k: int, which: Tensor) -> Tensor:
    """`largest_entries(v, k)[which]` for increasing int64 `which` on the CPU, without a list of all k."""
    if v.numel() < ONE_CHUNK or k * _SHORT <= v.numel() or k >= v.numel():
        return largest_entries(v, k)[which]
    last = int(MagnitudeHistogram(v).ranked(k - 1, k))
    least = abs(float(v[last]))

    def marks(start: int, stop: int) -> tuple[int, np.ndarray]:
        magnitudes, ties = np.abs(plain(v[start:stop])), max(0, last + 1 - start)
        inside = magnitudes > least
        inside[:ties] |= magnitudes[:ties] == least
        return int(np.count_nonzero(inside)), np.packbits(inside)

    blocks = in_blocks(marks, v.numel(), _BLOCK)
    ends = np.cumsum([count for count, _ in blocks])
    numbers, found = plain(which), [np.empty(0, dtype=np.int64)]
    for number, (count, packed) in enumerate(blocks):
        first, end = np.searchsorted(numbers, (ends[number] - count, ends[number]))
        inside = np.flatnonzero(np.unpackbits(packed).view(bool))
        found.append(number * _BLOCK + inside[numbers[first:end] - (ends[number] - count)])
    return torch.from_numpy(np.concatenate(found))


def common_from(n: int) -> int:
    """So many of n entries in a bin are looked at more closely: ties, zeros."""
    return max(n >> 3, SMALL)


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


def _largest_scalar(v, width, infinite, k, common):  # type: ignore[no-untyped-def]
    """`largest_entries` of a short float32 vector in one call; none where `MagnitudeHistogram` must look closer."""
    counts, top = counts_scalar(v, width, infinite)
    if top < 0:
        return np.empty(0, dtype=np.int64)
    return window_scalar(v.view(np.int32), np.int32(0x7FFFFFFF), 31 - width, counts[0], top, 0, k, common)


def _largest_reference(v: np.ndarray, width: int, infinite: int, k: int, common: int) -> np.ndarray:
    if not np.isfinite(v).all():
        return np.empty(0, dtype=np.int64)
    return MagnitudeHistogram(torch.from_numpy(v)).short_window(0, k)


_place = Loop(_place_scalar, _place_reference)
_trim = Loop(_trim_scalar, _trim_reference, uses=[limit_of])
_window = Loop(window_scalar, _window_reference, uses=[_place_scalar, collect_scalar, _trim_scalar])
_largest = Loop(_largest_scalar, _largest_reference, uses=[counts_scalar, window_scalar])
