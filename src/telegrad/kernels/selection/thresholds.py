"""Where the t lies with Σ min(1, |v_j| / t) = k, from the counts of a histogram's bins and the exact sums over them."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.selection.bins import bins_of
from telegrad.kernels.selection.keys import count_with_offsets_reference, count_with_offsets_scalar, in_one_call

__all__ = ["UNKNOWN", "bin_sum", "short_threshold", "threshold_bin", "threshold_from"]

_WIDTH = 11
"""Of the bins for short vectors: to go through many takes longer than to count so few entries."""

UNKNOWN = -1.0


def bin_sum(count, offset, smallest, step):  # type: ignore[no-untyped-def]
    """Σ |v_j| over a bin of `count` entries, from the sum of what their keys exceed the bin's first one by."""
    # Within a bin magnitudes are linear in the key: an integer sum of keys gives theirs.
    return count * smallest + offset * step


def threshold_from(k, above, rest, total, count, largest):  # type: ignore[no-untyped-def]
    """t, from the bin that `threshold_bin` found, which has `count` entries up to `largest`: 0 where no more than k
    entries are not zero, `UNKNOWN` where t lies within the bin, so that its entries must be looked at one by one.
    """
    left = k - above
    if rest == 0.0 and (left >= count or total == 0.0):
        return 0.0
    t = (total + rest) / left
    return t if t >= largest else UNKNOWN


def threshold_bin(
    counts: np.ndarray, offsets: np.ndarray, smallest: np.ndarray, steps: np.ndarray, k: float
) -> tuple[int, int, float, float]:
    """The bin that the t with Σ min(1, |v_j| / t) = k lies in, or lies above but below the next one that is not empty;
    how many entries lie above this bin, the sum of those below, and that of its own. Bin −1 where it stays below k.

    `counts`: of the bins, from zero upwards; `smallest`, `steps`: as in `Bins`; `offsets`: as in `bin_sum`.
    """
    return _threshold(counts, offsets, smallest, steps, k)


def _threshold_scalar(counts, offsets, smallest, steps, k):  # type: ignore[no-untyped-def]
    found, found_above, found_smaller, found_sum = -1, 0, 0.0, 0.0
    above, smaller = counts.sum(), 0.0
    for b in range(len(counts)):
        if counts[b] == 0:
            continue
        reached = above + 0.0
        if smaller > 0.0:
            reached = reached + smaller / smallest[b] if smallest[b] > 0.0 else np.inf
        above -= counts[b]
        own = bin_sum(counts[b], offsets[b], smallest[b], steps[b])
        if reached >= k:
            found, found_above, found_smaller, found_sum = b, above, smaller, own
        smaller += own
    return found, found_above, found_smaller, found_sum


def _threshold_reference(
    counts: np.ndarray, offsets: np.ndarray, smallest: np.ndarray, steps: np.ndarray, k: float
) -> tuple[int, int, float, float]:
    bins = np.flatnonzero(counts)
    count, low, sums = counts[bins], smallest[bins], bin_sum(counts, offsets, smallest, steps)[bins]
    above = np.cumsum(count[::-1])[::-1]
    smaller = np.append(0.0, np.cumsum(sums)[:-1])
    with np.errstate(divide="ignore"):
        reached = above + np.divide(smaller, low, out=np.zeros_like(smaller), where=smaller > 0)
    enough = np.flatnonzero(reached >= k)
    if len(enough) == 0:
        return -1, 0, 0.0, 0.0
    at = enough[-1]
    return int(bins[at]), int(above[at] - count[at]), float(smaller[at]), float(sums[at])


def short_threshold(v: Tensor, k: float) -> float:
    """t of a float32 vector that one thread counts, in one call; `UNKNOWN` where it takes more, or v is another."""
    if not in_one_call(v):
        return UNKNOWN
    return float(_short(v.numpy(), *bins_of(v.dtype, _WIDTH), k))


def _short_scalar(v, width, infinite, smallest, largest, steps, k):  # type: ignore[no-untyped-def]
    totals, shift = np.zeros((1, 1 << width, 2), dtype=np.int64), np.uint32(31 - width)
    low = np.uint32((1 << (31 - width)) - 1)
    count_with_offsets_scalar(v.view(np.uint32), np.uint32(0x7FFFFFFF), shift, low, totals)
    counts, offsets = totals[0, :, 0], totals[0, :, 1]
    for b in range(infinite, len(counts)):
        if counts[b] > 0:
            return UNKNOWN
    at, above, rest, total = _threshold_scalar(counts, offsets, smallest, steps, k)
    return threshold_from(k, above, rest, total, counts[at], largest[at]) if at >= 0 else 0.0


def _short_reference(
    v: np.ndarray, width: int, infinite: int, smallest: np.ndarray, largest: np.ndarray, steps: np.ndarray, k: float
) -> float:
    totals, shift = np.zeros((1, 1 << width, 2), dtype=np.int64), np.uint32(31 - width)
    low = np.uint32((1 << (31 - width)) - 1)
    count_with_offsets_reference(v.view(np.uint32), np.uint32(0x7FFFFFFF), shift, low, totals)
    counts, offsets = totals[0, :, 0], totals[0, :, 1]
    if counts[infinite:].any():
        return UNKNOWN
    at, above, rest, total = _threshold_reference(counts, offsets, smallest, steps, k)
    return float(threshold_from(k, above, rest, total, counts[at], largest[at])) if at >= 0 else 0.0


_threshold = Loop(_threshold_scalar, _threshold_reference, uses=[bin_sum])
_short = Loop(_short_scalar, _short_reference, uses=[count_with_offsets_scalar, _threshold_scalar, threshold_from])
