"""A histogram of magnitudes relative to the largest, in steps of a 64th of an octave: what the prices and errors of
messages are predicted from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.statistics.magnitudes import largest_magnitude, plain
from telegrad.kernels.threads import in_blocks, in_chunks

__all__ = ["MagnitudeSums", "entries_from", "magnitude_sums", "smallest_in"]

# A float32's exponent and first six mantissa bits; 1, the largest relative magnitude, lies in a bin of its own.
_SHIFT, _BINS = 17, (127 << 6) + 1
_BLOCK = 1 << 20  # entries that are summed apart, whatever the number of threads


@dataclass(frozen=True)
class MagnitudeSums:
    """Of d entries: how many lie in each bin of |v_j| / max |v|, int64, their Σ|v_j| and their Σ v_j², float64; from
    zero upwards. Bin b begins at `smallest_in(b)`; the first holds what a float32 takes for zero, too.
    """

    d: int
    largest: float
    count: np.ndarray
    total: np.ndarray
    square: np.ndarray


def magnitude_sums(v: Tensor) -> MagnitudeSums:
    """The histogram of a flat, finite, non-zero vector, in one pass."""
    x, largest = plain(v), largest_magnitude(v)

    def work(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        count, sums = np.zeros(_BINS, dtype=np.int64), np.zeros((_BINS, 2))
        _gather(x[start:stop], largest, count, sums)
        return count, sums

    blocks = in_blocks(work, len(x), _BLOCK)
    count, sums = blocks[0]
    for more, further in blocks[1:]:
        count += more
        sums += further
    return MagnitudeSums(len(x), largest, count, sums[:, 0], sums[:, 1])


def smallest_in(bins: np.ndarray) -> np.ndarray:
    """The smallest |v_j| / max |v| of these bins, float64."""
    return (bins << _SHIFT).astype(np.int32).view(np.float32).astype(np.float64)


def entries_from(v: Tensor, lowest: float) -> Tensor:
    """The indices of the entries with |v_j| / max |v| >= lowest, which a bin begins with; int64, increasing."""
    x, largest = plain(v), largest_magnitude(v)
    marks = np.empty(len(x), dtype=bool)
    in_chunks(lambda _, a, b: _mark(x[a:b], largest, np.float32(lowest), marks[a:b]), len(x))
    return torch.from_numpy(np.flatnonzero(marks))


def _gather_scalar(x, largest, count, sums):  # type: ignore[no-untyped-def]
    relative = np.empty(1, dtype=np.float32)
    bits = relative.view(np.uint32)
    for i in range(len(x)):
        magnitude = abs(np.float64(x[i]))
        relative[0] = magnitude / largest
        number = bits[0] >> np.uint32(_SHIFT)
        count[number] += 1
        sums[number, 0] += magnitude
        sums[number, 1] += magnitude * magnitude


def _gather_reference(x: np.ndarray, largest: float, count: np.ndarray, sums: np.ndarray) -> None:
    magnitude = np.abs(x.astype(np.float64))
    number = (magnitude / largest).astype(np.float32).view(np.int32) >> _SHIFT
    count += np.bincount(number, minlength=len(count))
    sums[:, 0] += np.bincount(number, magnitude, len(count))
    sums[:, 1] += np.bincount(number, magnitude * magnitude, len(count))


def _mark_scalar(x, largest, lowest, marks):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        marks[i] = np.float32(abs(np.float64(x[i])) / largest) >= lowest


def _mark_reference(x: np.ndarray, largest: float, lowest: np.float32, marks: np.ndarray) -> None:
    marks[:] = (np.abs(x.astype(np.float64)) / largest).astype(np.float32) >= lowest


_gather = Loop(_gather_scalar, _gather_reference)
_mark = Loop(_mark_scalar, _mark_reference)
