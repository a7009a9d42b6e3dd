"""Random subsets and permutations: those of `Key.subset` and `Key.permutation`, at the pace of memory.

A subset's places are marked, one bit each, in the order in which they are drawn, until enough are: no sort, and nothing
larger than a 32nd of a float32 vector. A permutation sorts the elements of a stream, which are spread evenly: their
first bits tell nearly where each one goes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.random_numbers.uniforms import stream_bits
from telegrad.kernels.threads import in_chunks
from telegrad.random import Key
from telegrad.random.arrays import check_subset

__all__ = ["BUCKET", "list_marks", "permutation", "sort_bucket", "subset"]

BUCKET = 1 << 15
"""About so many elements are put in order at a time."""

_WORDS = 1 << 10  # words of marks that are looked at together
_DRAWS = 1 << 10  # draws that are made together
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_6, _58, _1 = np.uint64(6), np.uint64(58), np.uint64(1)
# Where the only bit of a 64-bit word is: by N. G. de Bruijn's sequence, whose windows of six bits all differ.
_SEQUENCE = np.uint64(0x03F79D71B4CB0A89)
_PLACE = np.empty(64, dtype=np.int64)
_PLACE[[(0x03F79D71B4CB0A89 << place & (1 << 64) - 1) >> 58 for place in range(64)]] = range(64)


def subset(key: Key, n: int, k: int, dtype: type[np.signedinteger[Any]] = np.int64) -> Tensor:
    """`key.subset(n, k)`: a uniformly random k-subset of 0 … n−1, sorted, int64 or int32."""
    check_subset(n, k)
    others = 2 * k > n  # then those that are left out are drawn
    marks, places = np.zeros(n // 64 + 1, dtype=np.uint64), np.empty(k + 1, dtype=dtype)
    _mark(*key.stream, n, n - k if others else k, marks)
    if others:
        np.invert(marks, out=marks)
        marks[-1] &= np.uint64((1 << n % 64) - 1)
    list_marks(marks, places)
    return torch.from_numpy(places[:k])


def permutation(key: Key, n: int) -> Tensor:
    """`key.permutation(n)`: a uniformly random permutation of 0 … n−1, int64."""
    coarse = (n // BUCKET).bit_length()
    if coarse == 0:
        return key.permutation(n)
    (offset, inner), shift = key.stream, np.uint64(64 - coarse)
    ends, bits, order = np.zeros(1 << coarse, dtype=np.int64), np.empty(n, dtype=np.uint64), np.empty(n, dtype=np.int64)
    _divide(offset, inner, shift, ends, bits, order)

    def work(_: int, start: int, stop: int) -> None:
        starts = np.append(0, ends[:-1])
        for bucket in range(*np.searchsorted(starts, (start, stop))):
            here = slice(starts[bucket], ends[bucket])
            sort_bucket(bits[here], order[here], np.uint64(coarse))

    in_chunks(work, n)
    return torch.from_numpy(order)


def _mark_scalar(offset, inner, n, count, marks):  # type: ignore[no-untyped-def]
    """Mark the first `count` distinct elements of the stream of integers below n, itself below 2^32."""
    first, wide, places = 0, np.uint64(n), np.empty(min(count, _DRAWS), dtype=np.uint32)
    while count > 0:
        # Never more than are wanted yet. All are made before they are marked: draws do not wait for memory then.
        size = min(count, _DRAWS)
        for i in range(size):
            drawn = stream_bits(offset, inner, first + i)
            places[i] = ((drawn >> _32) * wide + ((drawn & _LOW) * wide >> _32)) >> _32
        for i in range(size):
            place = np.uint64(places[i])
            before, bit = marks[place >> _6], _1 << (place & np.uint64(63))
            marks[place >> _6] = before | bit
            count -= np.int64((before & bit) == 0)
        first += size


def _mark_reference(offset: np.uint64, inner: np.uint64, n: int, count: int, marks: np.ndarray) -> None:
    drawn, wide = np.zeros(0, dtype=np.int64), np.uint64(n)
    distinct = first_seen = drawn
    while len(distinct) < count:
        more = np.arange(len(drawn), len(drawn) + count + count // 2 + 16, dtype=np.uint64)
        with np.errstate(over="ignore"):
            bits = stream_bits(offset, inner, more)
        places = ((bits >> _32) * wide + ((bits & _LOW) * wide >> _32)) >> _32
        drawn = np.concatenate([drawn, places.astype(np.int64)])
        distinct, first_seen = np.unique(drawn, return_index=True)
    places = drawn[np.sort(first_seen)[:count]].astype(np.uint64)
    np.bitwise_or.at(marks, places >> _6, _1 << (places & np.uint64(63)))


def place_of(bit):  # type: ignore[no-untyped-def]
    """Where the only bit of a word is."""
    return _PLACE[(bit * _SEQUENCE) >> _58]


def _list_scalar(marks, places):  # type: ignore[no-untyped-def]
    """The places that are marked, in order; `places` has room for one more."""
    at, numbers = np.uint64(0), np.empty(_WORDS, dtype=np.int64)
    for start in range(0, len(marks), _WORDS):
        # The words with a mark first, then two of their marks in any case: few branches to mispredict.
        count = np.uint64(0)
        for number in range(start, min(start + _WORDS, len(marks))):
            numbers[count] = number
            count += np.uint64(marks[number] != 0)
        for i in range(count):
            word, first = marks[np.uint64(numbers[i])], 64 * numbers[i]
            lowest = word & (~word + _1)
            places[at] = first + place_of(lowest)
            word ^= lowest
            lowest = word & (~word + _1)
            places[at + _1] = first + place_of(lowest)
            word ^= lowest
            at += _1 + np.uint64(lowest != 0)
            while word:
                lowest = word & (~word + _1)
                places[at] = first + place_of(lowest)
                word ^= lowest
                at += _1


def _list_reference(marks: np.ndarray, places: np.ndarray) -> None:
    places[:-1] = np.flatnonzero(np.unpackbits(marks.astype("<u8").view(np.uint8), bitorder="little"))


def _divide_scalar(offset, inner, shift, ends, bits, order):  # type: ignore[no-untyped-def]
    """The stream's elements, and their numbers, in buckets by their first bits; `ends`: those of the buckets."""
    for i in range(len(bits)):
        ends[stream_bits(offset, inner, i) >> shift] += 1
    total = 0
    for bucket in range(len(ends)):
        count = ends[bucket]
        ends[bucket] = total
        total += count
    for i in range(len(bits)):
        drawn = stream_bits(offset, inner, i)
        at = ends[drawn >> shift]
        bits[at], order[at] = drawn, i
        ends[drawn >> shift] = at + 1


def _divide_reference(
    offset: np.uint64, inner: np.uint64, shift: np.uint64, ends: np.ndarray, bits: np.ndarray, order: np.ndarray
) -> None:
    with np.errstate(over="ignore"):
        drawn = stream_bits(offset, inner, np.arange(len(bits), dtype=np.uint64))
    bucket = (drawn >> shift).astype(np.int64)
    order[:] = np.argsort(bucket, kind="stable")
    bits[:] = drawn[order]
    ends[:] = np.cumsum(np.bincount(bucket, minlength=len(ends)))


def _sort_scalar(bits, order, skip):  # type: ignore[no-untyped-def]
    """Put a bucket, whose elements share their first `skip` bits, in the order of its elements."""
    n, fine = len(bits), 0
    while (1 << fine) < n:
        fine += 1
    shift = np.uint64(64 - fine)
    starts = np.zeros((1 << fine) + 1, dtype=np.int64)
    for i in range(n):
        starts[((bits[i] << skip) >> shift) + _1] += 1
    for part in range(1 << fine):
        starts[part + 1] += starts[part]
    new_bits, new_order = np.empty(n, dtype=np.uint64), np.empty(n, dtype=np.int64)
    for i in range(n):
        part = (bits[i] << skip) >> shift
        at = starts[part]
        new_bits[at], new_order[at] = bits[i], order[i]
        starts[part] = at + 1
    # Parts are in order, and have about one element each: within them, by insertion.
    for i in range(n):
        at, element, number = i, new_bits[i], new_order[i]
        while at > 0 and bits[at - 1] > element:
            bits[at], order[at] = bits[at - 1], order[at - 1]
            at -= 1
        bits[at], order[at] = element, number


def _sort_reference(bits: np.ndarray, order: np.ndarray, skip: np.uint64) -> None:
    new = np.argsort(bits, kind="stable")
    bits[:], order[:] = bits[new], order[new]


_mark = Loop(_mark_scalar, _mark_reference, uses=[stream_bits])
list_marks = Loop(_list_scalar, _list_reference, uses=[place_of])
_divide = Loop(_divide_scalar, _divide_reference, uses=[stream_bits])
sort_bucket = Loop(_sort_scalar, _sort_reference)
