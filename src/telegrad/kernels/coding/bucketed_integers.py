"""Integers in buckets: up to 7 one by one, then four an octave, with what lies below a bucket in raw bits."""

from __future__ import annotations

import numpy as np

from telegrad.kernels.coding.bit_streams import bits_at, words_of
from telegrad.kernels.coding.scatter import narrow
from telegrad.kernels.compilation import Loop

__all__ = ["LARGEST_BUCKET", "bucketed", "gaps_of", "places", "raw_bits", "widths_of"]

LARGEST_BUCKET = 4 * 50
"""The last bucket that messages may name."""

_TILE = 512


def gaps_of(places: np.ndarray) -> np.ndarray:
    """How many integers lie between each of the increasing int64 `places` and the one before it, the first's −1."""
    gaps = np.empty_like(places)
    _between(places, gaps)
    return gaps


def _between_scalar(places, gaps):  # type: ignore[no-untyped-def]
    last = np.int64(-1)
    for i in range(len(places)):
        gaps[i] = places[i] - last - 1
        last = places[i]


def _between_reference(places: np.ndarray, gaps: np.ndarray) -> None:
    gaps[:] = np.diff(places, prepend=-1) - 1


def _bucket_scalar(gaps, buckets, widths):  # type: ignore[no-untyped-def]
    # As floats, whose exponent is the integer's length less one: no loop over its bits.
    real = np.empty(_TILE)
    exponents = real.view(np.int64)
    for low in range(0, len(gaps), _TILE):
        part, bucket, width = gaps[low : low + _TILE], buckets[low : low + _TILE], widths[low : low + _TILE]
        for i in range(len(part)):
            real[i] = np.float64(part[i])
        for i in range(len(part)):
            raw = max((exponents[i] >> 52) - 1025, 0)
            width[i], bucket[i] = raw, (part[i] >> raw) + 4 * raw


def _bucket_reference(gaps: np.ndarray, buckets: np.ndarray, widths: np.ndarray) -> None:
    # Exact: a float64 holds the first three bits of any integer, and rounds it up to a power of two only from 2^53 on.
    raw = np.maximum(np.frexp(gaps.astype(np.float64))[1] - 3, 0)
    buckets[:], widths[:] = (gaps >> raw) + 4 * raw, raw


_between = Loop(_between_scalar, _between_reference)
_bucket = Loop(_bucket_scalar, _bucket_reference)


def bucketed(gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bucket, number of raw bits below it) of each gap, uint8; gaps, int64, from 0 to 2^53 − 1."""
    buckets, widths = np.empty(len(gaps), dtype=np.uint8), np.empty(len(gaps), dtype=np.uint8)
    _bucket(gaps, buckets, widths)
    return buckets, widths


def widths_of(buckets: np.ndarray) -> np.ndarray:
    """The number of raw bits below each bucket; bucket b starts at (b − 4 width) · 2^width."""
    return np.maximum(buckets // 4, 1) - 1


def _starts_of(buckets: np.ndarray) -> np.ndarray:
    return (buckets - 4 * widths_of(buckets)) << widths_of(buckets)


# What belongs to a bucket, looked up: a byte, whatever it is, finds an entry.
_BUCKETS = np.minimum(np.arange(256), LARGEST_BUCKET)
_WIDTHS, _STARTS = widths_of(_BUCKETS).astype(np.uint64), _starts_of(_BUCKETS).astype(np.uint64)


def raw_bits(buckets: np.ndarray) -> int:
    """The number of raw bits below all of them; uint8."""
    return int(_raw_bits(buckets))


def _raw_bits_scalar(buckets):  # type: ignore[no-untyped-def]
    total = np.int64(0)
    for i in range(len(buckets)):
        total += max(np.int64(1), np.int64(buckets[i]) >> 2) - 1
    return total


def places(buckets: np.ndarray, data: np.ndarray, d: int) -> np.ndarray | None:
    """The places, `narrow`, increasing and below d, between which lie gaps of these buckets, uint8, and the raw bits
    `data`; None where one is not below d.
    """
    out = np.empty(len(buckets), dtype=narrow(d))
    return out if _places(buckets, words_of(data), _WIDTHS, _STARTS, d, out) else None


def _places_scalar(buckets, words, widths, starts, d, out):  # type: ignore[no-untyped-def]
    at, place = np.uint64(0), np.int64(-1)
    for i in range(len(out)):
        width = widths[buckets[i]]
        place += np.int64(starts[buckets[i]] + bits_at(words, at, width)) + 1
        at += width
        if place >= d:
            return False
        out[i] = place
    return True


def _places_reference(
    buckets: np.ndarray, words: np.ndarray, widths: np.ndarray, starts: np.ndarray, d: int, out: np.ndarray
) -> bool:
    width = widths[buckets]
    gaps = (starts[buckets] + bits_at(words, np.cumsum(width) - width, width)).astype(np.int64)
    found = np.cumsum(gaps + 1) - 1
    out[:] = found
    # In floats as well: sums of foreign gaps may exceed 64 bits.
    return len(out) == 0 or (float(gaps.sum(dtype=np.float64)) < 2.0**62 and int(found[-1]) < d)


_raw_bits = Loop(_raw_bits_scalar, lambda buckets: _WIDTHS[buckets].sum())
_places = Loop(_places_scalar, _places_reference, uses=[bits_at])
