"""What compressors made of others share: the estimate of a first one, and the vector that a second one takes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded, decoded, overflows
from telegrad.kernels.quantising.narrowing import narrowed
from telegrad.kernels.statistics.magnitudes import largest_magnitude, plain
from telegrad.kernels.threads import in_blocks
from telegrad.random import Key

__all__ = ["decoded_parts", "representable"]

_PART = 16384  # entries: fewer than torch shares out over threads of its own

Part = Callable[[int, int], Tensor]
"""The entries from the first number to before the second one of a vector that is never made as a whole; float64."""


def decoded_parts(encoded: Encoded, like: Tensor) -> Part:
    """`decoded(encoded, like)`, part by part; `like` on the CPU."""
    if any(term.positions.indices() is None for term in encoded.terms):
        whole = decoded(encoded, like)
        return lambda start, stop: whole[start:stop]
    listed = [(term.positions.indices(), term.values.numbers()) for term in encoded.terms]
    arrays = [(plain(index), plain(numbers)) for index, numbers in listed if index is not None]

    def part(start: int, stop: int) -> Tensor:
        out = np.zeros(stop - start)
        for index, numbers in arrays:
            first, last = np.searchsorted(index, (start, stop))
            out[index[first:last] - start] += numbers[first:last]
        return torch.from_numpy(out)

    return part


def representable(part: Part, n: int, dtype: torch.dtype, key: Key, owner: Compressor) -> Tensor:
    """The n entries of a vector as a tensor of `dtype`, rounded stochastically, for `owner` to compress once more."""
    out = torch.empty(n, dtype=dtype)

    def work(start: int, stop: int) -> None:
        out[start:stop] = narrowed(part(start, stop), dtype, key, start)

    in_blocks(work, n, _PART)
    if not math.isfinite(largest_magnitude(out)):
        raise overflows(owner, dtype)
    return out
