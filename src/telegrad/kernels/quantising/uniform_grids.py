"""Uniform grids: which point each number goes to, how many numbers go to each, how far one grid lies from the next.

Every pass reads the numbers in their own precision and makes what it needs of them block by block: nothing of the
vector's size is made but the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.statistics.magnitudes import plain, sums_of_squares_in
from telegrad.kernels.threads import in_blocks, in_chunks, kept

__all__ = ["BELOW", "EVEN", "ODD", "ZERO", "Refinement", "UniformGrid", "squared_steps"]

EVEN, ODD, BELOW = 0, 1, 2
"""The rules of a grid: the nearest integer, halves to the even one; 2 ⌊y⌋ + 1; ⌊y⌋."""

_WIDE = (torch.float32, torch.float64)
_PIECE = 1 << 18  # 16-bit floats are widened in pieces, never as a whole
_BLOCK = 65536  # entries whose squares are summed apart
_TILE = 2048  # entries that are looked at together
_LANES = 64
_FEW = 4096  # points with several tables for their counts


@dataclass(frozen=True)
class UniformGrid:
    """The points first + step · q, bottom <= q <= top: x goes to the q that `rule` makes of (x − low) / width, clamped.

    q never falls as x rises.
    """

    low: float
    width: float
    rule: int
    bottom: int
    top: int
    first: float
    step: float

    @property
    def size(self) -> int:
        """How many integers q may be."""
        return self.top - self.bottom + 1

    def points(self, q: np.ndarray) -> np.ndarray:
        """first + step · q, float64."""
        return np.multiply(q, self.step, dtype=np.float64) + self.first

    def numbers(self, v: Tensor) -> Tensor:
        """q of every entry, in the smallest signed type that holds all there may be, on the CPU."""
        most = max(self.top, -self.bottom)
        out = np.empty(len(v), dtype=np.int8 if most < 128 else np.int16 if most < 32768 else np.int64)

        def work(_: int, start: int, stop: int) -> None:
            for low, x in _pieces(v, start, stop):
                _number(x, self.parameters, out[low : low + len(x)])

        in_chunks(work, len(v))
        return torch.from_numpy(out)

    @kept
    def parameters(self) -> np.ndarray:
        """All of it, float64, as the loops take it."""
        return np.array([self.low, self.width, self.rule, self.bottom, self.top, self.first, self.step])


ZERO = UniformGrid(0.0, 1.0, BELOW, 0, 0, 0.0, 0.0)
"""The grid of one point, 0."""


@dataclass(frozen=True)
class Refinement:
    """Two grids, the `fine` one to replace the `coarse` one. Which pair of points an entry goes to is told by one
    number, its code: how far its two q lie above their bottoms, together. As neither falls where x rises, no two pairs
    that occur have the same sum.
    """

    coarse: UniformGrid
    fine: UniformGrid

    @property
    def size(self) -> int:
        """The number of codes."""
        return self.coarse.size + self.fine.size - 1

    def counts(self, v: Tensor, lower: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(how many entries have each code, int64; where `lower`, the coarse q of those that occur, above its
        bottom).
        """

        def work(_: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            # Several tables where they are small, so that equal neighbours do not wait for each other.
            counts = np.zeros((4 if self.size <= _FEW else 1, self.size), dtype=np.int64)
            below = np.zeros(self.size if lower else 0, dtype=np.int32)
            for _, x in _pieces(v, start, stop):
                _count(x, *self._parameters, counts, below)
            return counts.sum(0) if len(counts) > 1 else counts[0], below

        counts, below = work(0, 0, 0)
        for own, own_below in in_chunks(work, len(v)):
            counts += own
            np.maximum(below, own_below, out=below)
        return counts, below

    def occurring(self, v: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(the codes that occur, increasing; how many entries have each; the coarse q of each, above its bottom)."""
        if self.size <= len(v):
            counts, below = self.counts(v, lower=True)
            code = np.flatnonzero(counts)
            return code, counts[code], below[code]
        # With more codes than entries a sort of the entries is shorter than a histogram.
        lower, codes = np.empty(len(v), dtype=np.int32), np.empty(len(v), dtype=np.int32)
        _code(plain(v), *self._parameters, lower, codes)
        code, first, counts = np.unique(codes, return_index=True, return_counts=True)
        return code, counts, lower[first]

    def translated(self, v: Tensor, table: np.ndarray) -> np.ndarray:
        """table[code] of every entry, in the smallest of uint8, uint16 and int64 that holds the table of integers from
        0.
        """
        largest = int(table.max())
        table = table.astype(np.uint8 if largest < 256 else np.uint16 if largest < 65536 else np.int64)
        out = np.empty(len(v), dtype=table.dtype)

        def work(_: int, start: int, stop: int) -> None:
            for low, x in _pieces(v, start, stop):
                _translate(x, *self._parameters, table, out[low : low + len(x)])

        in_chunks(work, len(v))
        return out

    @property
    def _parameters(self) -> tuple[np.ndarray, np.ndarray]:
        return self.coarse.parameters, self.fine.parameters


def squared_steps(v: Tensor, grids: Sequence[UniformGrid]) -> np.ndarray:
    """Σ (g^l_j − g^(l−1)_j)² over every 65536 neighbours, g^l_j the point of grid l that v_j goes to, g⁰ = 0, and v
    itself the last; float64, shape (len(grids) + 1, blocks). Sums have the order of `magnitudes.sums_of_squares`.
    """
    parameters = np.stack([grid.parameters for grid in grids])

    def work(start: int, stop: int) -> np.ndarray:
        sums = np.empty(len(grids) + 1)
        _square_steps(plain(v[start:stop]), parameters, sums)
        return sums

    return np.stack(in_blocks(work, len(v), _BLOCK), axis=1)


def _pieces(v: Tensor, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    """(where it starts, the numbers) of piece after piece."""
    if v.dtype in _WIDE:
        yield start, plain(v)[start:stop]
        return
    for low in range(start, stop, _PIECE):
        yield low, plain(v[low : min(stop, low + _PIECE)])


def number_of(x, low, width, rule, bottom, top):  # type: ignore[no-untyped-def]
    """The q that x goes to, as a float64."""
    y = (np.float64(x) - low) / width
    y = np.rint(y) if rule == EVEN else 2.0 * np.floor(y) + 1.0 if rule == ODD else np.floor(y)
    return min(max(y, bottom), top)


def _numbers_of(x: np.ndarray, grid: np.ndarray) -> np.ndarray:
    low, width, rule, bottom, top = grid[:5]
    y = (x.astype(np.float64) - low) / width
    y = np.rint(y) if rule == EVEN else 2.0 * np.floor(y) + 1.0 if rule == ODD else np.floor(y)
    return np.clip(y, bottom, top)


def codes_of(x, coarse, fine, lower, codes):  # type: ignore[no-untyped-def]
    """Fill in the coarse q above its bottom, and the code."""
    low, width, rule, bottom, top = coarse[0], coarse[1], coarse[2], coarse[3], coarse[4]
    if bottom == top:
        lower[: len(x)] = 0
    else:
        for i in range(len(x)):
            lower[i] = np.int32(number_of(x[i], low, width, rule, bottom, top) - bottom)
    low, width, rule, bottom, top = fine[0], fine[1], fine[2], fine[3], fine[4]
    for i in range(len(x)):
        codes[i] = np.int32(number_of(x[i], low, width, rule, bottom, top) - bottom) + lower[i]


def _codes_of(x: np.ndarray, coarse: np.ndarray, fine: np.ndarray, lower: np.ndarray, codes: np.ndarray) -> None:
    lower[:] = _numbers_of(x, coarse) - coarse[3]
    codes[:] = lower + _numbers_of(x, fine) - fine[3]


def _number_scalar(x, grid, out):  # type: ignore[no-untyped-def]
    low, width, rule, bottom, top = grid[0], grid[1], grid[2], grid[3], grid[4]
    for i in range(len(x)):
        out[i] = np.int64(number_of(x[i], low, width, rule, bottom, top))


def _number_reference(x: np.ndarray, grid: np.ndarray, out: np.ndarray) -> None:
    out[:] = _numbers_of(x, grid)


def _count_scalar(x, coarse, fine, counts, below):  # type: ignore[no-untyped-def]
    lower, codes, last = np.empty(_TILE, dtype=np.int32), np.empty(_TILE, dtype=np.int32), len(counts) - 1
    for start in range(0, len(x), _TILE):
        part = x[start : start + _TILE]
        codes_of(part, coarse, fine, lower, codes)
        for i in range(len(part)):
            counts[np.uint64(i & last), np.uint64(codes[i])] += 1
        if len(below):
            for i in range(len(part)):
                below[np.uint64(codes[i])] = lower[i]


def _count_reference(
    x: np.ndarray, coarse: np.ndarray, fine: np.ndarray, counts: np.ndarray, below: np.ndarray
) -> None:
    lower, codes = np.empty((2, len(x)), dtype=np.int32)
    _codes_of(x, coarse, fine, lower, codes)
    counts[0] += np.bincount(codes, minlength=counts.shape[1])
    if len(below):
        below[codes] = lower


def _translate_scalar(x, coarse, fine, table, out):  # type: ignore[no-untyped-def]
    lower, codes = np.empty(_TILE, dtype=np.int32), np.empty(_TILE, dtype=np.int32)
    for start in range(0, len(x), _TILE):
        part, own = x[start : start + _TILE], out[start : start + _TILE]
        codes_of(part, coarse, fine, lower, codes)
        for i in range(len(part)):
            own[i] = table[np.uint64(codes[i])]


def _translate_reference(
    x: np.ndarray, coarse: np.ndarray, fine: np.ndarray, table: np.ndarray, out: np.ndarray
) -> None:
    lower, codes = np.empty((2, len(x)), dtype=np.int32)
    _codes_of(x, coarse, fine, lower, codes)
    out[:] = table[codes]


def _square_steps_scalar(x, grids, sums):  # type: ignore[no-untyped-def]
    lanes, before = np.zeros((len(sums), _LANES)), np.empty(_TILE)
    for start in range(0, len(x), _TILE):
        part = x[start : start + _TILE]
        whole = len(part) // _LANES * _LANES
        before[:] = 0.0
        for level in range(len(sums)):
            own, exact = lanes[level], level == len(grids)
            if not exact:
                grid = grids[level]
                low, width, rule, bottom, top = grid[0], grid[1], grid[2], grid[3], grid[4]
                first, step = grid[5], grid[6]
            for i in range(0, whole, _LANES):
                for lane in range(_LANES):
                    here = np.float64(part[i + lane])
                    if not exact:
                        here = first + number_of(here, low, width, rule, bottom, top) * step
                    change = here - before[i + lane]
                    before[i + lane] = here
                    own[lane] += change * change
            for i in range(whole, len(part)):
                here = np.float64(part[i])
                if not exact:
                    here = first + number_of(here, low, width, rule, bottom, top) * step
                change = here - before[i]
                before[i] = here
                own[i - whole] += change * change
    for level in range(len(sums)):
        total = 0.0
        for lane in range(_LANES):
            total += lanes[level, lane]
        sums[level] = total


def _square_steps_reference(x: np.ndarray, grids: np.ndarray, sums: np.ndarray) -> None:
    before = np.zeros(len(x))
    for level in range(len(sums)):
        grid = grids[level] if level < len(grids) else None
        here = x.astype(np.float64) if grid is None else grid[5] + _numbers_of(x, grid) * grid[6]
        sums[level] = sums_of_squares_in(here - before, _BLOCK)[0]
        before = here


_number = Loop(_number_scalar, _number_reference, uses=[number_of])
_code = Loop(codes_of, _codes_of, uses=[number_of])
_count = Loop(_count_scalar, _count_reference, uses=[codes_of])
_translate = Loop(_translate_scalar, _translate_reference, uses=[codes_of])
_square_steps = Loop(_square_steps_scalar, _square_steps_reference, uses=[number_of])
