"""The blocks of a rotation: their lengths, and which entries of the vector belong to them.

n entries are cut into blocks of 65536, then one block for each binary digit of what is left, down to 64 (A21): no
padding. The entries of the short blocks are spread evenly over the vector, and among these blocks by a stride near the
golden section of their number: no short block gets the largest entries of a sorted vector. The long blocks share out
the others, neighbours to neighbours, as memory likes it. The fewer than 64 entries at the end form one block.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from telegrad.kernels.compilation import Loop

__all__ = ["LARGEST", "SMALLEST", "block_sizes", "gather", "scatter", "short_before", "short_places"]

LARGEST = 65536
"""The longest block: a quarter or half of a megabyte, which the caches of one core hold."""
SMALLEST = 64
"""The shortest block for a Hadamard transform; what is shorter is rotated uniformly."""


def block_sizes(n: int) -> list[int]:
    """The lengths of the blocks of n entries, in order; 1e5 = 65536 + 32768 + 1024 + 512 + 128 + 32."""
    sizes = [LARGEST] * (n // LARGEST)
    left, size = n % LARGEST, LARGEST // 2
    while size >= SMALLEST:
        if left & size:
            sizes.append(size)
        size //= 2
    return sizes + [left % SMALLEST] * (left % SMALLEST > 0)


def short_before(n: int, start: int) -> int:
    """How many entries of short blocks lie before entry number `start` of the long ones."""
    rest = n % LARGEST
    # Number j has ⌊j n / rest⌋ − j long ones before it.
    return min(rest, ((start + 1) * rest - 1) // (n - rest) + 1)


@lru_cache(4)
def short_places(n: int) -> np.ndarray:
    """Where the entries of the short blocks lie, in the order of the blocks."""
    rest = n % LARGEST
    stride = _stride(rest) if len(block_sizes(rest)) > 1 else 1
    return np.arange(rest) * stride % max(1, rest) * n // max(1, rest)


def _stride(n: int) -> int:
    """Multiples, modulo n, of the first integer from 0.618 n on that is coprime to n go through 0 … n−1."""
    stride = int(0.6180339887498949 * n)
    while math.gcd(stride, n) != 1:
        stride += 1
    return stride


def _gather_scalar(x: Any, first: int, skipped: int, rest: int, out: Any) -> None:
    n, at, done = len(x), first + skipped, 0
    while done < len(out):
        stop = skipped * n // rest if skipped < rest else n
        count = min(stop - at, len(out) - done)
        source, target = x[at : at + count], out[done : done + count]
        for j in range(count):
            target[j] = source[j]
        done, at, skipped = done + count, stop + 1, skipped + 1


def _scatter_scalar(x: Any, scale: float, n: int, first: int, skipped: int, rest: int, base: int, out: Any) -> None:
    at, done = first + skipped, 0
    while done < len(x):
        stop = skipped * n // rest if skipped < rest else n
        count = min(stop - at, len(x) - done)
        source, target = x[done : done + count], out[at - base : at - base + count]
        for j in range(count):
            target[j] = source[j] * scale
        done, at, skipped = done + count, stop + 1, skipped + 1


def _whole_places(n: int, first: int, size: int, rest: int) -> np.ndarray:
    number, places = np.arange(rest), np.arange(first, first + size)
    return places + np.searchsorted(number * n // max(1, rest) - number, places, side="right")


def _gather_reference(x: np.ndarray, first: int, skipped: int, rest: int, out: np.ndarray) -> None:
    out[:] = x[_whole_places(len(x), first, len(out), rest)]


def _scatter_reference(
    x: np.ndarray, scale: float, n: int, first: int, skipped: int, rest: int, base: int, out: np.ndarray
) -> None:
    with np.errstate(over="ignore"):
        out[_whole_places(n, first, len(x), rest) - base] = x.astype(np.float64) * scale


_gather = Loop(_gather_scalar, _gather_reference)
_scatter = Loop(_scatter_scalar, _scatter_reference)


def gather(x: np.ndarray, start: int, out: np.ndarray) -> None:
    """Fill `out` with the entries of x from number `start` of the long blocks on."""
    _gather(x, start, short_before(len(x), start), len(x) % LARGEST, out)


def scatter(x: np.ndarray, scale: float | np.floating[Any], n: int, start: int, base: int, out: np.ndarray) -> None:
    """The inverse of `gather` for vectors of n entries, times `scale`; the first of `out` is entry number `base`."""
    _scatter(x, scale, n, start, short_before(n, start), n % LARGEST, base, out)
