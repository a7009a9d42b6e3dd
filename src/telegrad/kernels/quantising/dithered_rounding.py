"""Compiled passes of subtractive dithering: symbols, what an entropy coder sees of them, and back (A26)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.quantising.dither_frequencies import CONTEXTS, DISTANCES, SINGLE, bucket_of, contexts_of
from telegrad.kernels.random_numbers.uniforms import STRIDE, UNIT, bits_at, bits_from, state_at
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import in_chunks
from telegrad.random import Key

__all__ = [
    *("BEYOND", "SLOTS", "cell_of"),
    "contexts_at",
    "dithered_symbols",
    "far_magnitudes",
    "rows_at",
    "signed_symbols",
    "write_undithered",
]

_TILE = 512
_PIECE = 1 << 16
_ONE, _39 = np.uint64(1), np.uint64(39)
_HALF, _WHOLE = np.uint64(1 << 52), np.uint64(1 << 53)


def _dither(offset: np.uint64, inner: np.uint64, first: int, n: int) -> np.ndarray:
    return bits_from(offset, inner, first, n) * UNIT - 0.5


def _dithered_scalar(x: Any, step: float, offset: Any, inner: Any, first: int, out: Any) -> None:
    state = state_at(offset, first)
    for i in range(len(x)):
        dither = np.float64(bits_at(state, inner)) * UNIT - 0.5
        state += STRIDE
        out[i] = np.int64(np.floor(np.float64(x[i]) / step + dither + 0.5))


def _dithered_reference(
    x: np.ndarray, step: float, offset: np.uint64, inner: np.uint64, first: int, out: np.ndarray
) -> None:
    out[:] = np.floor(x.astype(np.float64) / step + _dither(offset, inner, first, len(x)) + 0.5).astype(np.int64)


def dithered_symbols(v: Tensor, step: float, seed: int, top: float) -> Tensor:
    """⌊v_j / step + u_j + ½⌋ with the dither of `seed`, in the smallest integer type for magnitudes up to `top`."""
    x, (offset, inner), most = plain(v), Key(seed).stream, top / step + 1
    out = np.empty(len(x), dtype=np.int8 if most < 127 else np.int16 if most < 32767 else np.int64)
    in_chunks(lambda _, low, high: _dithered(x[low:high], step, offset, inner, low, out[low:high]), len(x))
    return torch.from_numpy(out)


def _undithered_scalar(symbols: Any, step: float, offset: Any, inner: Any, first: int, out: Any) -> None:
    state = state_at(offset, first)
    for i in range(len(symbols)):
        dither = np.float64(bits_at(state, inner)) * UNIT - 0.5
        state += STRIDE
        out[i] = (np.float64(symbols[i]) - dither) * step


def _undithered_reference(
    symbols: np.ndarray, step: float, offset: np.uint64, inner: np.uint64, first: int, out: np.ndarray
) -> None:
    with np.errstate(over="ignore"):
        out[:] = (symbols.astype(np.float64) - _dither(offset, inner, first, len(symbols))) * step


def write_undithered(symbols: np.ndarray, step: float, seed: int, first: int, out: np.ndarray) -> None:
    """(symbol − dither) · step of symbols from number `first` on, in float64 and then rounded to the dtype of
    `out`, by this thread alone.
    """
    _undithered(symbols, step, *Key(seed).stream, first, out)


# The least distance from the edge of the dither's range beyond each cell, in units of 2^−53, and the cell of the
# least distance in each 8192nd of the distances.
BEYOND = np.append(np.ceil(DISTANCES[1:-1] * 2.0**53), 2.0**53).astype(np.uint64)
SLOTS = np.searchsorted(BEYOND, np.arange(8193, dtype=np.uint64) << np.uint64(39), side="right").astype(np.uint8)


def cell_of(distance, slots, beyond):  # type: ignore[no-untyped-def]
    """The cell of that distance from the edge, as `contexts_of` says."""
    cell = np.uint64(slots[distance >> _39])
    while distance >= beyond[cell]:  # one time in 500
        cell += _ONE
    return cell


def _contexts_scalar(offset: Any, inner: Any, first: int, slots: Any, beyond: Any, out: Any, negative: Any) -> None:
    distance = np.empty(_TILE, dtype=np.uint64)
    for low in range(0, len(out), _TILE):
        part, signs, state = out[low : low + _TILE], negative[low : low + _TILE], state_at(offset, first + low)
        for i in range(len(part)):
            bits = bits_at(state, inner)
            state += STRIDE
            signs[i] = bits < _HALF
            distance[i] = min(bits, _WHOLE - bits)
        for i in range(len(part)):
            part[i] = cell_of(distance[i], slots, beyond)


def _contexts_reference(
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    slots: np.ndarray,
    beyond: np.ndarray,
    out: np.ndarray,
    negative: np.ndarray,
) -> None:
    dither = _dither(offset, inner, first, len(out))
    out[:], negative[:] = contexts_of(dither), dither < 0


def contexts_at(seed: int, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells of the dither's elements first … stop − 1, and whether each is negative; uint8."""
    out, negative = np.empty((2, stop - first), dtype=np.uint8)
    _contexts(*Key(seed).stream, first, SLOTS, BEYOND, out, negative)
    return out, negative


def _rows_scalar(
    symbols: Any, columns: int, offset: Any, inner: Any, first: int, slots: Any, beyond: Any, out: Any
) -> None:
    distance, column, real = np.empty(_TILE, dtype=np.uint64), np.empty(_TILE, dtype=np.int64), np.empty(_TILE)
    real_bits = real.view(np.int64)
    for low in range(0, len(symbols), _TILE):
        part, rows = symbols[low : low + _TILE], out[low : low + _TILE]
        state, most = state_at(offset, first + low), np.int64(0)
        for i in range(len(part)):
            u = bits_at(state, inner)
            state += STRIDE
            symbol, negative = np.int64(part[i]), np.int64(u < _HALF)
            folded = (symbol ^ -negative) + negative
            column[i] = 2 * abs(symbol) - np.int64(folded > 0)
            distance[i] = min(u, _WHOLE - u)
            most = max(most, abs(symbol))
        if most >= SINGLE:
            for i in range(len(part)):
                real[i] = np.float64((column[i] + 1) >> 1)
            for i in range(len(part)):
                # The exponent of a float64 is the integer's length less one.
                magnitude, width = (column[i] + 1) >> 1, max((real_bits[i] >> 52) - 1026, 0)
                bucket = 8 + 8 * width + ((magnitude >> width) & 7)
                column[i] = 2 * bucket - (column[i] & 1) if width else column[i]
        for i in range(len(part)):
            rows[i] = np.int64(cell_of(distance[i], slots, beyond)) * columns + column[i]


def _rows_reference(
    symbols: np.ndarray,
    columns: int,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    slots: np.ndarray,
    beyond: np.ndarray,
    out: np.ndarray,
) -> None:
    dither, symbol = _dither(offset, inner, first, len(symbols)), symbols.astype(np.int64)
    folded = np.where(dither < 0, -symbol, symbol)
    out[:] = contexts_of(dither) * columns + np.maximum(2 * bucket_of(np.abs(symbol)) - (folded > 0), 0)


def rows_at(symbols: np.ndarray, columns: int, seed: int, first: int, stop: int) -> np.ndarray:
    """What the coder sees of symbols first … stop − 1: the cell of the dither times `columns`, plus the column of the
    symbol as it would be were the dither positive: 0, then +b and −b for the buckets b = 1, 2, …
    """
    out = np.empty(stop - first, dtype=np.uint16)
    _rows(symbols[first:stop], columns, *Key(seed).stream, first, SLOTS, BEYOND, out)
    return out


def _far_scalar(symbols: Any, least: int, out: Any) -> Any:
    at = np.uint64(0)
    for i in range(len(symbols)):
        magnitude = abs(np.int64(symbols[i]))
        # Written in any case, kept where it is far: no branch to mispredict.
        out[at] = magnitude
        at += np.uint64(magnitude >= least)
    return at


def _far_reference(symbols: np.ndarray, least: int, out: np.ndarray) -> int:
    magnitude = np.abs(symbols.astype(np.int64))
    far = magnitude[magnitude >= least]
    out[: len(far)] = far
    return len(far)


def far_magnitudes(symbols: np.ndarray, least: int) -> np.ndarray:
    """|symbol| of those from `least` on, in their order, int64."""

    def work(_: int, start: int, stop: int) -> list[np.ndarray]:
        room = np.empty(min(stop - start, _PIECE) + 1, dtype=np.int64)
        parts = (symbols[low : min(stop, low + _PIECE)] for low in range(start, stop, _PIECE))
        return [room[: _far(part, least, room)].copy() for part in parts]

    parts = (far for part in in_chunks(work, len(symbols)) for far in part)
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _signed_scalar(columns: Any, negative: Any, magnitudes: Any, out: Any) -> None:
    if len(magnitudes) <= 2 * SINGLE:  # no bucket has two: arithmetic goes through vector registers, a table does not
        for i in range(len(columns)):
            column = np.int64(columns[i])
            flip = -((column & 1) ^ np.int64(1) ^ np.int64(negative[i]))
            out[i] = (((column + 1) >> 1) ^ flip) - flip
        return
    for i in range(len(columns)):
        column = np.int64(columns[i])
        out[i] = magnitudes[column] * (2 * ((column & 1) ^ np.int64(negative[i])) - 1)


def _signed_reference(columns: np.ndarray, negative: np.ndarray, magnitudes: np.ndarray, out: np.ndarray) -> None:
    out[:] = np.where((columns % 2 == 1) != (negative > 0), magnitudes[columns], -magnitudes[columns])


def signed_symbols(columns: np.ndarray, negative: np.ndarray, magnitudes: np.ndarray, out: np.ndarray) -> None:
    """The inverse of `rows_at`: of each column the symbol, that nearest to zero in a bucket. `negative`: whether its
    dither is; `magnitudes`: of each column.
    """
    _signed(columns, negative, magnitudes, out)


assert len(DISTANCES) - 1 == CONTEXTS

_dithered = Loop(_dithered_scalar, _dithered_reference, uses=[state_at, bits_at])
_undithered = Loop(_undithered_scalar, _undithered_reference, uses=[state_at, bits_at])
_contexts = Loop(_contexts_scalar, _contexts_reference, uses=[state_at, bits_at, cell_of])
_rows = Loop(_rows_scalar, _rows_reference, uses=[state_at, bits_at, cell_of])
_far = Loop(_far_scalar, _far_reference)
_signed = Loop(_signed_scalar, _signed_reference)
