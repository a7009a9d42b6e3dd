"""Integers in buckets: up to 7 one by one, then four an octave, with what lies below a bucket in raw bits."""

from __future__ import annotations

import numpy as np

from telegrad.kernels.compiled import Loop

__all__ = ["bucketed", "widths_of"]


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
