"""The dither along a path, for whoever has its symbols: what an entropy coder sees of them, and what they stand for.

The dither of an entry depends on the class of the state that its path is in, and the symbols tell how the path goes on
(see `telegrad.kernels.trellis.dithered_paths`). Here "dither" is d + ½ in units of 2^−53.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from telegrad.kernels.compilation import Loop
from telegrad.kernels.quantising.dithered_rounding import BEYOND, SLOTS, cell_of
from telegrad.kernels.random_numbers.uniforms import STRIDE, UNIT, bits_at, bits_from, state_at
from telegrad.kernels.trellis.paths import SEGMENT, machine, paths_of
from telegrad.random import Key

__all__ = ["DITHER", "HALF", "SINGLE", "WHOLE", "cells", "path_rows", "segments", "turned", "undithered_path"]

_TILE = 512  # entries, a multiple of the most paths
_1, _53 = np.uint64(1), np.uint64(53)
HALF, WHOLE = np.uint64(1 << 52), np.uint64(1 << 53)
DITHER = WHOLE - _1
"""The bits of `turned` that are the dither."""

SINGLE = 16
"""Magnitudes from here on are coded in buckets."""


def turned(bits: Any, parity: Any) -> Any:
    """(2u − class / 2 + ½) in units of 2^−53: n and then d + ½."""
    return (bits << _1) + (_1 - parity) * HALF


def _followed(symbols: Any, stream: Any, inner: Any, after: Any, state: Any, dither: Any) -> Any:
    """Fill `dither` for neighbours whose first belongs to path 0, from the states of the paths on; the stream's state
    behind them.
    """
    mask = len(state) - 1
    for i in range(len(symbols)):
        own = state[i & mask]
        full = turned(bits_at(stream, inner), np.uint64(own & 1))
        stream += STRIDE
        dither[i] = full & DITHER
        state[i & mask] = after[own, (np.int64(symbols[i]) + np.int64(full >> _53)) & 1]
    return stream


def _followed_reference(
    symbols: np.ndarray, offset: np.uint64, inner: np.uint64, first: int, after: np.ndarray, state: np.ndarray
) -> np.ndarray:
    bits, dither = bits_from(offset, inner, first, len(symbols)), np.empty(len(symbols), dtype=np.uint64)
    for at in range(0, len(symbols), len(state)):
        here = slice(at, min(at + len(state), len(symbols)))
        own = state[: here.stop - at]
        full = turned(bits[here], (own & 1).astype(np.uint64))
        dither[here] = full & DITHER
        state[: here.stop - at] = after[own, (symbols[here] + (full >> _53).astype(np.int64)) & 1]
    return dither


def _column_of(symbol: Any, dither: Any) -> Any:
    """The column of a symbol as it would be were the dither positive."""
    folded = -symbol if dither < HALF else symbol
    magnitude, width = abs(symbol), 0
    if magnitude < SINGLE:
        return 2 * magnitude - np.int64(folded > 0)
    while magnitude >> width >= SINGLE:
        width += 1
    return 2 * (8 + 8 * width + ((magnitude >> width) & 7)) - np.int64(folded > 0)


def _columns(symbols: np.ndarray, dither: np.ndarray) -> np.ndarray:
    symbol = symbols.astype(np.int64)
    magnitude, folded = np.abs(symbol), np.where(dither < HALF, -symbol, symbol)
    width = np.maximum(np.frexp(np.maximum(magnitude, 1).astype(np.float64))[1].astype(np.int64) - 4, 0)
    bucket = np.where(width > 0, 8 + 8 * width + ((magnitude >> width) & 7), magnitude)
    return 2 * bucket - (folded > 0)


def cells(dither: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """`cell_of` the distances from the edge: the numpy form."""
    return np.searchsorted(beyond, np.minimum(dither, WHOLE - dither), side="right")


def _rows_scalar(symbols: Any, paths: Any, columns: int, slots: Any, beyond: Any, out: Any) -> None:
    offset, inner, first, after, state = paths
    dither, stream = np.empty(_TILE, dtype=np.uint64), state_at(offset, first)
    for low in range(0, len(symbols), _TILE):
        part, rows = symbols[low : low + _TILE], out[low : low + _TILE]
        stream = _followed(part, stream, inner, after, state, dither)
        for i in range(len(part)):
            cell = np.int64(cell_of(min(dither[i], WHOLE - dither[i]), slots, beyond))
            rows[i] = cell * columns + _column_of(np.int64(part[i]), dither[i])


def _rows_reference(symbols: Any, paths: Any, columns: int, slots: Any, beyond: Any, out: Any) -> None:
    dither = _followed_reference(symbols, *paths)
    out[:] = cells(dither, beyond) * columns + _columns(symbols, dither)


def _undithered_scalar(symbols: Any, paths: Any, step: float, out: Any) -> None:
    offset, inner, first, after, state = paths
    dither, stream = np.empty(_TILE, dtype=np.uint64), state_at(offset, first)
    for low in range(0, len(symbols), _TILE):
        part, numbers = symbols[low : low + _TILE], out[low : low + _TILE]
        stream = _followed(part, stream, inner, after, state, dither)
        for i in range(len(part)):
            numbers[i] = (np.float64(part[i]) - (np.float64(dither[i]) * UNIT - 0.5)) * step


def _undithered_reference(symbols: Any, paths: Any, step: float, out: Any) -> None:
    dither = _followed_reference(symbols, *paths)
    with np.errstate(over="ignore"):
        out[:] = (symbols.astype(np.float64) - (dither * UNIT - 0.5)) * step


_rows = Loop(_rows_scalar, _rows_reference, uses=[_followed, _column_of, cell_of, state_at])
_undithered = Loop(_undithered_scalar, _undithered_reference, uses=[_followed, state_at])


def segments(n: int, seed: int, first: int, states: int) -> Iterator[tuple[slice, tuple[Any, ...]]]:
    """The segments of n symbols from number `first`, the start of one, on; of each what loops that follow its paths
    take: offset, inner and first of the stream, the machine's ways on, and the states of the paths at its start.
    """
    stream, after = Key(seed).stream, machine(states).after
    for low in range(0, n, SEGMENT):
        high = min(low + SEGMENT, n)
        yield slice(low, high), (*stream, first + low, after, np.zeros(paths_of(high - low), dtype=np.int64))


def path_rows(symbols: np.ndarray, columns: int, seed: int, first: int, states: int) -> np.ndarray:
    """What the coder sees of the symbols from number `first`, the start of a segment, on: the cell of the dither times
    `columns`, plus the column of the symbol as it would be were the dither positive; uint16.
    """
    out = np.empty(len(symbols), dtype=np.uint16)
    for here, paths in segments(len(symbols), seed, first, states):
        _rows(symbols[here], paths, columns, SLOTS, BEYOND, out[here])
    return out


def undithered_path(symbols: np.ndarray, step: float, seed: int, first: int, states: int, out: np.ndarray) -> None:
    """(symbol − dither) · step of symbols from number `first`, the start of a segment, on; float32 or float64."""
    for here, paths in segments(len(symbols), seed, first, states):
        _undithered(symbols[here], paths, step, out[here])
