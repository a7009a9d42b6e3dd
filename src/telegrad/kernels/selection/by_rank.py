"""Selection by magnitude without a sort: a histogram in one pass, and in a second the entries that are wanted.

A histogram counts the keys (`telegrad.kernels.selection.keys`) by their first bits; from it the bins in which given
ranks lie are known, the entries of these and of the bins between are collected, and only within the two outer bins keys
are compared one by one. Ranks go by decreasing magnitude, equal magnitudes in the order of their indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import NonFiniteError
from telegrad.kernels.compilation import Loop
from telegrad.kernels.reference import descending_order
from telegrad.kernels.selection.bins import bins_of
from telegrad.kernels.selection.keys import first_bits, in_one_call, keys_of
from telegrad.kernels.selection.rank_windows import counts_scalar, place, trim, window, window_scalar
from telegrad.kernels.selection.thresholds import bin_sum, threshold_bin
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import ONE_CHUNK, in_blocks

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
        self._top = int(place(self.counts, len(self.counts) - 1, 0)[0])
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
        """`telegrad.kernels.selection.thresholds.threshold_bin` of these bins."""
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
        chosen = where[: trim(where, found, *before, *until)]
        return torch.from_numpy(np.sort(np.concatenate([chosen, *pieces])) if pieces else chosen)

    def short_window(self, start: int, stop: int) -> np.ndarray:
        """`ranked` by one thread in one go; none where that is not to be had: on a GPU, for 16-bit floats, and where
        many entries share a bin at an end.
        """
        keys = self._keys
        if keys.exact or not keys.shift:
            return np.empty(0, dtype=np.int64)
        found: np.ndarray = window(keys.plain, keys.mask, keys.shift, self.counts, self._top, start, stop, self._common)
        return found

    def _cut(self, rank: int) -> _Cut:
        """The narrowest run of keys around the entry of that rank that is worth counting."""
        keys, counts, last, cut = self._keys, self.counts, self._top, _Cut(0, self._keys.bits, 0, self.n)
        while True:
            number, above = place(counts, last, rank - cut.above)
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
    if in_one_call(v):
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


def common_from(n):  # type: ignore[no-untyped-def]
    """So many of n entries in a bin are looked at more closely: ties, zeros."""
    return max(n >> 3, SMALL)


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


_largest = Loop(_largest_scalar, _largest_reference, uses=[counts_scalar, window_scalar])
