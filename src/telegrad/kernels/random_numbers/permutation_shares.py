"""One rank's share of a random permutation, without the permutation.

A permutation puts the elements of a stream in order (see `telegrad.kernels.random_numbers.subsets`). Here the buckets
of a quarter of them, by their first bits, are there at a time, and each place is marked by one bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.random_numbers.subsets import BUCKET, list_marks, permutation, sort_bucket
from telegrad.kernels.random_numbers.uniforms import stream_bits
from telegrad.kernels.threads import each, in_chunks
from telegrad.random import Key

__all__ = ["dealt"]

_PASSES = 4  # more take less memory and more time
_TOGETHER = 1 << 10
_6, _63, _1 = np.uint64(6), np.uint64(63), np.uint64(1)


def dealt(key: Key, n: int, parts: int, part: int, dtype: type[np.signedinteger[Any]] = np.int64) -> Tensor:
    """Those at places part, part + parts, part + 2 parts, … of `key.permutation(n)`, sorted; int64 or int32."""
    coarse = (n // BUCKET).bit_length()
    if coarse < 2 or n > 1 << 32:  # numbers take 32 bits here
        return torch.from_numpy(np.sort(permutation(key, n).numpy()[part::parts]).astype(dtype))
    (offset, inner), shift = key.stream, np.uint64(64 - coarse)
    starts = np.append(0, np.cumsum(sum(in_chunks(lambda _, a, b: _counts(offset, inner, a, b, shift), n))))

    def work(first: int) -> np.ndarray:
        last, start = first + len(starts) // _PASSES, starts[first]
        marks, order = np.zeros(n // 64 + 1, dtype=np.uint64), np.empty(starts[last] - start, dtype=np.uint32)
        _collect(offset, inner, n, shift, np.uint64(first), starts[first:last] - start, order)
        for bucket in range(first, last):
            own = order[starts[bucket] - start : starts[bucket + 1] - start]
            bits = np.empty(len(own), dtype=np.uint64)
            _draw(offset, inner, own, bits)
            sort_bucket(bits, own, np.uint64(coarse))
            _mark(own[(part - starts[bucket]) % parts :: parts].copy(), marks)
        return marks

    marked = each(work, range(0, len(starts) - 1, len(starts) // _PASSES), n)
    places = np.empty((n - part - 1) // parts + 2, dtype=dtype)
    list_marks(np.bitwise_or.reduce(marked), places)
    return torch.from_numpy(places[:-1])


def _counts(offset: np.uint64, inner: np.uint64, start: int, stop: int, shift: np.uint64) -> np.ndarray:
    counts = np.zeros(1 << (64 - int(shift)), dtype=np.int64)
    _count(offset, inner, start, stop, shift, counts)
    return counts


def _count_scalar(offset, inner, start, stop, shift, counts):  # type: ignore[no-untyped-def]
    """How many of the stream's elements from number `start` to `stop` − 1 each bucket has."""
    for i in range(start, stop):
        counts[stream_bits(offset, inner, i) >> shift] += 1


def _count_reference(
    offset: np.uint64, inner: np.uint64, start: int, stop: int, shift: np.uint64, counts: np.ndarray
) -> None:
    with np.errstate(over="ignore"):
        drawn = stream_bits(offset, inner, np.arange(start, stop, dtype=np.uint64))
    counts += np.bincount((drawn >> shift).astype(np.int64), minlength=len(counts))


def _collect_scalar(offset, inner, n, shift, first, ends, order):  # type: ignore[no-untyped-def]
    """The numbers of the elements in some buckets from `first` on, bucket by bucket; `ends`: where these start."""
    count = np.uint64(len(ends))
    found, buckets = np.empty(_TOGETHER + 1, dtype=np.uint32), np.empty(_TOGETHER + 1, dtype=np.uint64)
    for start in range(0, n, _TOGETHER):
        # Those in these buckets first: no branches to mispredict.
        kept = np.uint64(0)
        for i in range(start, min(n, start + _TOGETHER)):
            bucket = (stream_bits(offset, inner, i) >> shift) - first
            found[kept], buckets[kept] = i, bucket
            kept += np.uint64(bucket < count)  # those before wrap around
        for j in range(kept):
            at = ends[buckets[j]]
            order[np.uint64(at)] = found[j]
            ends[buckets[j]] = at + 1


def _collect_reference(
    offset: np.uint64, inner: np.uint64, n: int, shift: np.uint64, first: np.uint64, ends: np.ndarray, order: np.ndarray
) -> None:
    with np.errstate(over="ignore"):
        bucket = (stream_bits(offset, inner, np.arange(n, dtype=np.uint64)) >> shift) - first
    here = np.flatnonzero(bucket < np.uint64(len(ends)))
    order[:] = here[np.argsort(bucket[here], kind="stable")]


def _draw_scalar(offset, inner, numbers, bits):  # type: ignore[no-untyped-def]
    for i in range(len(bits)):
        bits[i] = stream_bits(offset, inner, numbers[i])


def _draw_reference(offset: np.uint64, inner: np.uint64, numbers: np.ndarray, bits: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        bits[:] = stream_bits(offset, inner, numbers.astype(np.uint64))


def _mark_scalar(places, marks):  # type: ignore[no-untyped-def]
    for i in range(len(places)):
        place = np.uint64(places[i])
        marks[place >> _6] |= _1 << (place & _63)


def _mark_reference(places: np.ndarray, marks: np.ndarray) -> None:
    wide = places.astype(np.uint64)
    np.bitwise_or.at(marks, wide >> _6, _1 << (wide & _63))


_count = Loop(_count_scalar, _count_reference, uses=[stream_bits])
_collect = Loop(_collect_scalar, _collect_reference, uses=[stream_bits])
_draw = Loop(_draw_scalar, _draw_reference, uses=[stream_bits])
_mark = Loop(_mark_scalar, _mark_reference)
