"""A vector's magnitudes as integers, and the passes over all of them.

Without its sign bit a float is an integer that grows with its magnitude, its *key*: that of infinity lies above those
of all numbers, those of NaN above it. Counts of keys are integers, so every number of threads finds the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels import device
from telegrad.kernels.compilation import Loop
from telegrad.kernels.device import with_gpu_form
from telegrad.kernels.threads import ONE_CHUNK, in_chunks

__all__ = ["INTEGERS", "SHORT_BITS", "Keys", "first_bits", "in_one_call", "keys_of"]

INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
INTEGERS |= {torch.bfloat16: torch.int16, torch.float16: torch.int16}
"""What a float's bits are read as."""

_SIGNED = {dtype: np.dtype(f"i{dtype.itemsize}") for dtype in INTEGERS}
# For counting: an index without a sign needs no look at whether it counts from the end.
_UNSIGNED = {dtype: np.dtype(f"u{dtype.itemsize}") for dtype in INTEGERS}
_MASKS = {dtype: _SIGNED[dtype].type((1 << 8 * dtype.itemsize - 1) - 1) for dtype in INTEGERS}

_LONG = 1 << 20
SHORT_BITS = 13
"""Of a key that tell its bin, where the vector is not long: then it is not worth clearing many bins."""
_BITS_OF_LONG = 15
_BLOCK = 256


def in_one_call(v: Tensor) -> bool:
    """Whether v is a float32 vector in memory that one thread goes through: its passes then are one compiled function,
    for handing arrays from one to the next costs more than ten thousand entries do.
    """
    return v.numel() < ONE_CHUNK and v.dtype == torch.float32 and v.is_cpu and not device.everywhere


def first_bits(v: Tensor) -> int:
    """How many first bits of a key tell its bin."""
    return SHORT_BITS if v.element_size() > 2 and v.numel() < _LONG else _BITS_OF_LONG


def _bits_of(v: Tensor) -> np.ndarray:
    """What v's floats are as signed integers; numpy has no bfloat16, but views its arrays in a third of the time."""
    if v.requires_grad or not v.is_cpu:
        v = v.detach().cpu()
    return v.view(torch.int16).numpy() if v.dtype == torch.bfloat16 else v.numpy().view(_SIGNED[v.dtype])


class Keys:
    """A vector's magnitudes as integers of `bits` bits, and the passes over them."""

    exact = False
    """Whether a window's ends are found to the last bit by counting, and nothing more than it is collected."""

    def __init__(self, v: Tensor) -> None:
        self.bits, self.width, self._n = 8 * v.element_size() - 1, first_bits(v), v.numel()
        self.shift = self.bits - self.width
        self.plain, self.mask = _bits_of(v), _MASKS[v.dtype]
        self._unsigned = self.plain.view(_UNSIGNED[v.dtype])

    def counted(self, low: int, shift: int, within: int | None = None) -> np.ndarray:
        """The counts of key >> shift; of only the keys from `low` on to low + 2^within − 1, relative to low."""
        bins = 1 << ((self.bits if within is None else within) - shift)
        rows = 4 if self._n >= 1 << 16 else 1
        unsigned = self._unsigned.dtype.type
        mask, by = unsigned(self.mask), unsigned(shift)

        def work(_: int, start: int, stop: int) -> np.ndarray:
            counts = np.zeros((rows, bins), dtype=np.int64)
            if within is None:
                _count(self._unsigned[start:stop], mask, by, counts)
            else:
                _count_within(self.plain[start:stop], self.mask, low, low + (1 << within) - 1, shift, counts)
            return counts.sum(0) if rows > 1 else counts[0]

        return _summed(in_chunks(work, self._n))

    def counted_with_offsets(self) -> np.ndarray:
        """The counts of the keys' first bits and the sums of what is below these, int64, shape (bins, 2)."""
        shift, bins = self.shift, 1 << self.width
        rows = 2 if self._n >= 1 << 16 else 1

        def work(_: int, start: int, stop: int) -> np.ndarray:
            totals = np.zeros((rows, bins, 2), dtype=np.int64)
            mask, low = self._unsigned.dtype.type([self.mask, (1 << shift) - 1])
            _count_with_offsets(self._unsigned[start:stop], mask, self._unsigned.dtype.type(shift), low, totals)
            return totals.sum(0) if rows > 1 else totals[0]

        return _summed(in_chunks(work, self._n))

    def collected(self, low: int, high: int, most: int) -> tuple[np.ndarray, np.ndarray]:
        """(indices, keys) of the entries with keys from low to high, of which there are `most`."""

        def work(_: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            room = min(most, stop - start) + 1  # the loop writes one place ahead
            where, keys = np.empty(room, dtype=np.int64), np.empty(room, dtype=self.plain.dtype)
            n = _collect(self.plain[start:stop], self.mask, low, high, start, where, keys)
            return where[:n], keys[:n]

        parts = in_chunks(work, self._n)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def ties(self, key: int, first: int, last: int) -> np.ndarray:
        """The indices of the entries with that very key, from the `first` to before the `last` of them."""
        where = np.empty(last - first, dtype=np.int64)
        _collect_ties(self.plain, self.mask, key, first, where)
        return where


@with_gpu_form("keys")
def keys_of(v: Tensor) -> Keys:
    """The passes over v's magnitudes, where v lies."""
    return Keys(v)


def _summed(parts: list[np.ndarray]) -> np.ndarray:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def count_scalar(keys, mask, shift, counts):  # type: ignore[no-untyped-def]
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


def count_with_offsets_scalar(keys, mask, shift, low, totals):  # type: ignore[no-untyped-def]
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


def count_with_offsets_reference(keys: np.ndarray, mask: Any, shift: Any, low: Any, totals: np.ndarray) -> None:
    plain = (keys & mask).astype(np.int64)
    bins, below = plain >> int(shift), plain & int(low)
    totals[0, :, 0] += np.bincount(bins, minlength=totals.shape[1])
    np.add.at(totals[0, :, 1], bins, below)


def collect_scalar(keys, mask, low, high, start, where, found):  # type: ignore[no-untyped-def]
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


_count = Loop(count_scalar, _count_reference)
_count_within = Loop(_count_within_scalar, _count_within_reference)
_count_with_offsets = Loop(count_with_offsets_scalar, count_with_offsets_reference)
_collect = Loop(collect_scalar, _collect_reference)
_collect_ties = Loop(_collect_ties_scalar, _collect_ties_reference)
