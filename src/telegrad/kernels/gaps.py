"""Integers in buckets: up to 7 one by one, then four an octave, with what lies below a bucket in raw bits."""

from __future__ import annotations

import numpy as np

from telegrad.kernels.bit_streams import get_varied, pull
from telegrad.kernels.compiled import Loop

__all__ = ["bucketed", "places", "raw_bits", "widths_of"]


def _bucket_scalar(gaps, buckets, widths):  # type: ignore[no-untyped-def]
    for i in range(len(gaps)):
        gap, width = gaps[i], 0
        while gap > 7:
            gap >>= 1
            width += 1
        buckets[i] = gap + 4 * width
        widths[i] = width


def _bucket_reference(gaps: np.ndarray, buckets: np.ndarray, widths: np.ndarray) -> None:
    # Exact: a float64 holds the first three bits of any integer, and rounds it up to a power of two only from 2^53 on.
    widths[:] = np.maximum(np.frexp(gaps.astype(np.float64))[1] - 3, 0)
    buckets[:] = (gaps >> widths) + 4 * widths


_bucket = Loop(_bucket_scalar, _bucket_reference)


def bucketed(gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bucket, number of raw bits below it) of each gap, int64; gaps from 0 to 2^53 − 1."""
    buckets, widths = np.empty_like(gaps), np.empty_like(gaps)
    _bucket(gaps, buckets, widths)
    return buckets, widths


def widths_of(buckets: np.ndarray) -> np.ndarray:
    """The number of raw bits below each bucket; bucket b starts at (b − 4 width) · 2^width."""
    return np.maximum(buckets // 4 - 1, 0)


def width_of(bucket):  # type: ignore[no-untyped-def]
    """The number of raw bits below a bucket."""
    return max(np.int64(0), (np.int64(bucket) >> 2) - 1)


def _raw_bits_scalar(buckets):  # type: ignore[no-untyped-def]
    total = 0
    for i in range(len(buckets)):
        total += width_of(buckets[i])
    return total


def raw_bits(buckets: np.ndarray) -> int:
    """The number of raw bits below all of them."""
    return int(_raw_bits(buckets))


def _places_scalar(buckets, data, d, out):  # type: ignore[no-untyped-def]
    at, fill, waiting, place = 0, 0, np.int64(0), np.int64(-1)
    for i in range(len(out)):
        width = width_of(buckets[i])
        at, fill, waiting, low = pull(data, at, fill, waiting, width)
        place += (((np.int64(buckets[i]) - 4 * width) << width) | low) + 1
        if place >= d:
            return False
        out[i] = place
    return True


def _places_reference(buckets: np.ndarray, data: np.ndarray, d: int, out: np.ndarray) -> bool:
    wide, low = buckets.astype(np.int64), np.empty_like(out)
    widths = widths_of(wide)
    get_varied.reference(data, widths, low)
    # In floats as well: sums of foreign gaps may exceed 64 bits.
    gaps = (wide - 4 * widths) << widths | low
    out[:] = np.cumsum(gaps + 1) - 1
    return len(out) == 0 or (float(gaps.sum(dtype=np.float64)) < 2.0**62 and int(out[-1]) < d)


def places(buckets: np.ndarray, data: np.ndarray, d: int) -> np.ndarray | None:
    """The places, int64, increasing and below d, between which lie gaps of these buckets (below 200) and the raw bits
    `data`; None where one is not below d.
    """
    out = np.empty(len(buckets), dtype=np.int64)
    return out if _places(buckets, data, d, out) else None


_raw_bits = Loop(_raw_bits_scalar, lambda buckets: widths_of(buckets.astype(np.int64)).sum(), uses=[width_of])
_places = Loop(_places_scalar, _places_reference, uses=[pull, width_of])
