"""Random rotations that both ends rebuild from a seed: randomised Hadamard transforms, uniform rotations where small.

A vector is cut into blocks (see `telegrad.kernels.rotation.blocks`). A block of m >= 64 is rotated by rounds of
H · diag(signs): two, and three below 4096 entries, where the bias that a rotation of so few random signs leaves to
quantisers is largest. The fewer than 64 entries at the end form one block under a uniformly distributed orthogonal
matrix (Diaconis and Shahshahani 1987), so that small tensors suffer no bias at all. By additions and subtractions in a
fixed order, in float32 for numbers of at most 32 bits and in float64 for others.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.coding.scatter import taken
from telegrad.kernels.device import on_gpu, with_gpu_form
from telegrad.kernels.memory import add_times
from telegrad.kernels.rotation.blocks import LARGEST, SMALLEST, block_sizes, gather, scatter, short_before, short_places
from telegrad.kernels.rotation.reflections import reflected
from telegrad.kernels.rotation.transform import turn_block, turn_block_back
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import in_chunks, kept
from telegrad.random import Key

__all__ = ["Rotation", "rotate", "rotate_back", "rotated_at"]

_SAFE = 4096


class Rotation:
    """The rotation number `seed` of vectors of n entries, a block at a time."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.sizes, self._key = n, block_sizes(n), Key(seed)
        self.starts = [0, *itertools.accumulate(self.sizes[:-1])]
        self._rest = n % LARGEST
        self._held = threading.local()

    @property
    def short_places(self) -> np.ndarray:
        """Where the entries of the short blocks lie, in the order of the blocks."""
        return short_places(self.n)

    def _places(self, number: int) -> np.ndarray:
        start = self.starts[number] - (self.n - self._rest)
        return self.short_places[start : start + self.sizes[number]]

    @kept
    def whole_words(self) -> np.ndarray:
        """The words of the keys of the signs that the long blocks' two rounds share, uint64, a row for each."""
        return _words(self._key.fold(block=0), 2)

    def scratch(self, number: int, dtype: np.dtype[Any]) -> np.ndarray:
        """Room for block `number`, this thread's: fresh memory costs more than a pass over it."""
        return self._scratch(self.sizes[number], dtype)[0]

    def _scratch(self, size: int, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
        held: dict[Any, Any] = self._held.__dict__
        if (size, dtype) not in held:
            held[size, dtype] = np.empty((2, size), dtype=dtype)
        first, second = held[size, dtype]
        return first, second

    def _rounds(self, start: int, size: int) -> tuple[np.ndarray, int]:
        """The words of the keys of each round's signs, and the first of the streams' numbers."""
        if size == LARGEST:
            return self.whole_words, start // 32
        return _words(self._key.fold(block=start).fold(size=size), 2 if size >= _SAFE else 3), 0

    def block(self, x: np.ndarray, number: int, dtype: np.dtype[Any] | None = None) -> tuple[np.ndarray, float]:
        """(Y, c): block `number` of the rotated x is Y / c, in x's precision or `dtype`'s; Y lasts until this thread's
        next call.
        """
        start, size = self.starts[number], self.sizes[number]
        own = self.scratch(number, dtype or x.dtype)
        if size == LARGEST:
            gather(x, start, own)
        else:
            own[:] = x[self._places(number)]
        return self.turned(own, number)

    def turned(self, own: np.ndarray, number: int) -> tuple[np.ndarray, float]:
        """`block` of entries that are already taken from their places; they are used up."""
        start, size = self.starts[number], self.sizes[number]
        other = self._scratch(size, own.dtype)[1]
        if size < SMALLEST:
            return reflected(own, self._key.fold(block=start), inverse=False), 1.0
        return own, turn_block(own, *self._rounds(start, size), other)

    def block_back(self, y: np.ndarray, number: int, scale: float, out: np.ndarray) -> None:
        """Write `scale` times the inverse image of y, block `number`, to where its entries belong in `out`; y (which
        may be what `scratch` gave) is used up.
        """
        y, scale = self.turned_back(y, number, scale)
        if self.sizes[number] == LARGEST:
            self._spread(y, scale, number, 0, out)
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # refused later
                out[self._places(number)] = y.astype(np.float64) * scale

    def add_block_back(self, y: np.ndarray, number: int, scale: float, out: np.ndarray, weight: float) -> None:
        """out += weight times what `block_back` writes."""
        y, scale = self.turned_back(y, number, scale)
        if self.sizes[number] == LARGEST:
            start = self.starts[number]
            low, high = (at + short_before(self.n, at) for at in (start, start + LARGEST - 1))
            # What lies between belongs to the short blocks, and has to stay as it is, whatever its sign.
            window = self._window(high + 1 - low, out.dtype)
            window.fill(math.copysign(0.0, -weight))
            self._spread(y, scale, number, low, window)
            add_times(out[low : high + 1], window, weight)
        else:
            places = self._places(number)
            with np.errstate(over="ignore", invalid="ignore"):
                numbers = (y.astype(np.float64) * scale).astype(out.dtype)
            total = out[places]
            add_times(total, numbers, weight)
            out[places] = total

    def _spread(self, y: np.ndarray, scale: float, number: int, base: int, out: np.ndarray) -> None:
        """A long block times `scale` to its places, the first of `out` being number `base`."""
        # Products are rounded once: in float32 where it holds the scale, else in float64.
        with np.errstate(over="ignore", under="ignore"):
            short = np.float32(scale)
        factor = short if y.itemsize == 4 and float(short) == scale else np.float64(scale)
        scatter(y, factor, self.n, self.starts[number], base, out)

    def _window(self, size: int, dtype: np.dtype[Any]) -> np.ndarray:
        """Room for a long block and what lies between its entries, this thread's."""
        held: dict[Any, Any] = self._held.__dict__
        if "window" not in held or len(held["window"]) < size or held["window"].dtype != dtype:
            held["window"] = np.empty(size + self._rest // max(1, self.n // LARGEST), dtype=dtype)
        return held["window"][:size]

    def turned_back(self, y: np.ndarray, number: int, scale: float) -> tuple[np.ndarray, float]:
        """(z, c): `scale` times the inverse image of y, block `number`, is c z; y is used up."""
        start, size = self.starts[number], self.sizes[number]
        if size < SMALLEST:
            return reflected(y, self._key.fold(block=start), inverse=True), scale
        return y, scale * turn_block_back(y, *self._rounds(start, size), self._scratch(size, y.dtype)[1])

    def each_block(self, work: Callable[[int], Any]) -> list[Any]:
        """[work(number) for every block], by all threads."""
        whole = self.n // LARGEST
        parts = in_chunks(
            lambda _, low, high: [work(number) for number in range(low // LARGEST, high // LARGEST)],
            whole * LARGEST,
            LARGEST,
        )
        return [*(done for part in parts for done in part), *map(work, range(whole, len(self.sizes)))]


def _words(key: Key, rounds: int) -> np.ndarray:
    return np.array(key.words_of_each("round", rounds), dtype=np.uint64)


@with_gpu_form("hadamard")
def rotate(v: Tensor, seed: int) -> Tensor:
    """The rotation number `seed` of the flat v, block by block; an isometry. float64, or float32 for shorter floats."""
    x, rotation = plain(v), Rotation(len(v), seed)
    out = np.empty_like(x)

    def work(number: int) -> None:
        y, c = rotation.block(x, number)
        start = rotation.starts[number]
        np.divide(y, y.dtype.type(c), out=out[start : start + len(y)])

    rotation.each_block(work)
    return torch.from_numpy(out).to(v.device)


def rotated_at(v: Tensor, seed: int, index: Tensor) -> Tensor:
    """The entries number `index` (increasing int64, on the CPU) of the rotation of v in float64; on the CPU."""
    if on_gpu(v):
        return taken(rotate(v.double(), seed), index)
    x, rotation, places = plain(v), Rotation(len(v), seed), index.numpy()
    ends, out = np.searchsorted(places, [*rotation.starts, len(v)]), np.empty(len(places))

    def work(number: int) -> None:
        here = slice(ends[number], ends[number + 1])
        if here.start < here.stop:
            y, c = rotation.block(x, number, out.dtype)
            np.divide(y[places[here] - rotation.starts[number]], c, out=out[here])

    rotation.each_block(work)
    return torch.from_numpy(out)


@with_gpu_form("hadamard")
def rotate_back(y: Tensor, seed: int) -> Tensor:
    """The inverse of `rotate`, which is also its transpose."""
    x, rotation = plain(y), Rotation(len(y), seed)
    out = np.empty_like(x)

    def work(number: int) -> None:
        start = rotation.starts[number]
        block = rotation.scratch(number, x.dtype)
        block[:] = x[start : start + len(block)]
        rotation.block_back(block, number, 1.0, out)

    rotation.each_block(work)
    return torch.from_numpy(out).to(y.device)
