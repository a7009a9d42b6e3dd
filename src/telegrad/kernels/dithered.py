"""Compiled passes of subtractive dithering: symbols, what an entropy coder sees of them, and back (A26)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compiled import Loop, in_chunks
from telegrad.kernels.dithering import CONTEXTS, DISTANCES, bucket_of, contexts_of, symbol_of
from telegrad.kernels.magnitudes import plain
from telegrad.kernels.uniforms import UNIT, uniform_bits, words
from telegrad.random import Key

__all__ = ["contexts_at", "dithered_symbols", "magnitude_histogram", "rows_at", "signed_symbols", "undithered"]

_FINE = 800
_TILE = 512
_BITS = 52


def _dither(offset: np.uint64, inner: np.uint64, first: int, n: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        return uniform_bits(offset, inner, np.arange(first, first + n, dtype=np.uint64)) * UNIT - 0.5


def _histogram_scalar(x: Any, top: float, below: Any, edges: Any, counts: Any) -> None:
    ratio = np.empty(256)
    bits = ratio.view(np.int64)
    for low in range(0, len(x), 256):
        part = x[low : low + 256]
        for i in range(len(part)):
            ratio[i] = abs(np.float64(part[i])) / top
        for i in range(len(part)):
            mantissa = bits[i] & ((1 << 52) - 1)
            start = below[mantissa >> 44]
            place = 16 * (1023 - (bits[i] >> 52)) - start - np.int64(mantissa > edges[start])
            counts[i & 3, min(place, counts.shape[1] - 1)] += 1


def _histogram_reference(x: np.ndarray, top: float, below: np.ndarray, edges: np.ndarray, counts: np.ndarray) -> None:
    bits = (np.abs(x.astype(np.float64)) / top).view(np.int64)
    mantissa = bits & ((1 << 52) - 1)
    start = below[mantissa >> 44]
    place = 16 * (1023 - (bits >> 52)) - start - (mantissa > edges[start])
    counts[0] += np.bincount(np.minimum(place, counts.shape[1] - 1), minlength=counts.shape[1])


# The leading bits of 2^(j/16), j = 0 … 15, and how many of them are below each 256th of an octave.
_EDGES = np.append((2.0 ** (np.arange(16) / 16)).view(np.int64) & ((1 << _BITS) - 1), 1 << _BITS)
_BELOW = np.searchsorted(_EDGES[:16], np.arange(256) << 44, side="left")


def magnitude_histogram(v: Tensor, top: float) -> np.ndarray:
    """How many entries have ⌊−16 log2(|v_j| / top)⌋ = 0 … 799, the last and beyond; `top` the largest magnitude."""
    x = plain(v)

    def work(_: int, start: int, stop: int) -> np.ndarray:
        counts = np.zeros((4, _FINE), dtype=np.int64)
        _histogram(x[start:stop], top, _BELOW, _EDGES, counts)
        return counts.sum(0)

    return np.sum(in_chunks(work, len(x)), axis=0)


def _dithered_scalar(x: Any, step: float, offset: Any, inner: Any, first: int, out: Any) -> None:
    for i in range(len(x)):
        dither = np.float64(uniform_bits(offset, inner, first + i)) * UNIT - 0.5
        out[i] = np.int64(np.floor(np.float64(x[i]) / step + dither + 0.5))


def _dithered_reference(
    x: np.ndarray, step: float, offset: np.uint64, inner: np.uint64, first: int, out: np.ndarray
) -> None:
    out[:] = np.floor(x.astype(np.float64) / step + _dither(offset, inner, first, len(x)) + 0.5).astype(np.int64)


def dithered_symbols(v: Tensor, step: float, seed: int, top: float) -> Tensor:
    """⌊v_j / step + u_j + ½⌋ with the dither of `seed`, in the smallest integer type for magnitudes up to `top`."""
    x, (offset, inner), most = plain(v), words(Key(seed)), top / step + 1
    out = np.empty(len(x), dtype=np.int8 if most < 127 else np.int16 if most < 32767 else np.int64)
    in_chunks(lambda _, low, high: _dithered(x[low:high], step, offset, inner, low, out[low:high]), len(x))
    return torch.from_numpy(out)


def _undithered_scalar(symbols: Any, step: float, offset: Any, inner: Any, first: int, out: Any) -> None:
    for i in range(len(symbols)):
        dither = np.float64(uniform_bits(offset, inner, first + i)) * UNIT - 0.5
        out[i] = (np.float64(symbols[i]) - dither) * step


def _undithered_reference(
    symbols: np.ndarray, step: float, offset: np.uint64, inner: np.uint64, first: int, out: np.ndarray
) -> None:
    with np.errstate(over="ignore"):
        out[:] = (symbols.astype(np.float64) - _dither(offset, inner, first, len(symbols))) * step


def undithered(symbols: Tensor, step: float, seed: int, dtype: torch.dtype) -> Tensor:
    """(symbol − dither) · step, in float64 and then rounded to float32 or float64."""
    (offset, inner), whole, out = words(Key(seed)), symbols.cpu().numpy(), torch.empty(len(symbols), dtype=dtype)
    array = out.numpy()
    in_chunks(lambda _, low, high: _undithered(whole[low:high], step, offset, inner, low, array[low:high]), len(whole))
    return out


def _cells_of(dither, cells):  # type: ignore[no-untyped-def]
    """The cells of dithers, as `contexts_of` says; what is in `dither` becomes the distance from its range's edge.

    No branch depends on a single dither: those near the edge are listed first, and then found among the edges of their
    octave.
    """
    near = np.empty(len(cells) + 1, dtype=np.int64)
    distance = dither
    for i in range(len(cells)):
        distance[i] = 0.5 - abs(dither[i])
    for i in range(len(cells)):
        cells[i] = min(np.int64((distance[i] - 0.0625) * 64.0) + 36, 63)
    count: Any = 0
    for i in range(len(cells)):
        near[count] = i
        count += np.int64(distance[i] < 0.0625)
    exponents = distance.view(np.int64)
    for k in range(count):
        # 1018 is the exponent of [1/32, 1/16), whose cells begin with number 32.
        base = max(32 - 4 * (1018 - (exponents[near[k]] >> 52)), 1)
        x, cell = distance[near[k]], base - 1
        for j in range(5):
            cell += np.int64(x >= DISTANCES[base + j])
        cells[near[k]] = cell


def _contexts_scalar(offset: Any, inner: Any, first: int, out: Any) -> None:
    dither, cells = np.empty(_TILE), np.empty(_TILE, dtype=np.int64)
    for low in range(0, len(out), _TILE):
        size = min(_TILE, len(out) - low)
        for i in range(size):
            dither[i] = np.float64(uniform_bits(offset, inner, first + low + i)) * UNIT - 0.5
        _cells_of(dither[:size], cells[:size])
        for i in range(size):
            out[low + i] = cells[i]


def _contexts_reference(offset: np.uint64, inner: np.uint64, first: int, out: np.ndarray) -> None:
    out[:] = contexts_of(_dither(offset, inner, first, len(out)))


def contexts_at(seed: int, first: int, stop: int) -> np.ndarray:
    """The cells of the dither's elements first … stop − 1, uint8."""
    out = np.empty(stop - first, dtype=np.uint8)
    _contexts(*words(Key(seed)), first, out)
    return out


def _rows_scalar(symbols: Any, columns: int, offset: Any, inner: Any, first: int, out: Any) -> None:
    dither, cells, negative = np.empty(_TILE), np.empty(_TILE, dtype=np.int64), np.empty(_TILE, dtype=np.int64)
    for low in range(0, len(symbols), _TILE):
        size = min(_TILE, len(symbols) - low)
        most: Any = np.int64(0)
        for i in range(size):
            dither[i] = np.float64(uniform_bits(offset, inner, first + low + i)) * UNIT - 0.5
            negative[i] = np.int64(dither[i] < 0)
        _cells_of(dither[:size], cells[:size])
        for i in range(size):
            symbol = np.int64(symbols[low + i])
            folded = symbol * (1 - 2 * negative[i])
            out[low + i] = cells[i] * columns + 2 * abs(symbol) - np.int64(folded > 0)
            most = max(most, abs(symbol))
        if most < 16:
            continue
        for i in range(size):
            symbol = np.int64(symbols[low + i])
            bucket: Any = abs(symbol)
            width = 0
            if bucket >= 16:
                while bucket >> width >= 16:
                    width += 1
                bucket = 16 + (width - 1) * 8 + ((bucket >> width) & 7)
                out[low + i] = cells[i] * columns + 2 * bucket - np.int64(symbol * (1 - 2 * negative[i]) > 0)


def _rows_reference(
    symbols: np.ndarray, columns: int, offset: np.uint64, inner: np.uint64, first: int, out: np.ndarray
) -> None:
    dither, symbol = _dither(offset, inner, first, len(symbols)), symbols.astype(np.int64)
    folded = np.where(dither < 0, -symbol, symbol)
    out[:] = contexts_of(dither) * columns + np.maximum(2 * bucket_of(np.abs(symbol)) - (folded > 0), 0)


def rows_at(symbols: np.ndarray, columns: int, seed: int, first: int, stop: int) -> np.ndarray:
    """What the coder sees of symbols first … stop − 1: the cell of the dither times `columns`, plus the column of the
    symbol as it would be were the dither positive: 0, then +b and −b for the buckets b = 1, 2, …
    """
    out = np.empty(stop - first, dtype=np.uint16)
    _rows(symbols[first:stop], columns, *words(Key(seed)), first, out)
    return out


def _signed_scalar(columns: Any, magnitudes: Any, offset: Any, inner: Any, first: int, out: Any) -> None:
    for i in range(len(columns)):
        half = np.int64(uniform_bits(offset, inner, first + i) >> np.uint64(52))  # 0 where the dither is negative
        column = np.int64(columns[i])
        out[i] = magnitudes[column] * (1 - 2 * ((column & 1) ^ half))


def _signed_reference(
    columns: np.ndarray, magnitudes: np.ndarray, offset: np.uint64, inner: np.uint64, first: int, out: np.ndarray
) -> None:
    magnitude, negative = magnitudes[columns], _dither(offset, inner, first, len(columns)) < 0
    out[:] = np.where((columns % 2 == 1) != negative, magnitude, -magnitude)


def signed_symbols(columns: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The inverse of `rows_at` for the `columns`, of which there are `count` kinds: the smallest of each bucket, in the
    smallest integer type.
    """
    magnitudes, (offset, inner) = symbol_of((np.arange(count) + 1) // 2), words(Key(seed))
    top = 2 * int(magnitudes[-1]) if count else 0  # what is below a bucket is less than its smallest
    out = np.empty(len(columns), dtype=np.int8 if top <= 127 else np.int16 if top <= 32767 else np.int64)
    in_chunks(
        lambda _, low, high: _signed(columns[low:high], magnitudes, offset, inner, low, out[low:high]), len(columns)
    )
    return out


assert len(DISTANCES) - 1 == CONTEXTS

_histogram = Loop(_histogram_scalar, _histogram_reference)
_dithered = Loop(_dithered_scalar, _dithered_reference, uses=[uniform_bits])
_undithered = Loop(_undithered_scalar, _undithered_reference, uses=[uniform_bits])
_contexts = Loop(_contexts_scalar, _contexts_reference, uses=[uniform_bits, _cells_of])
_rows = Loop(_rows_scalar, _rows_reference, uses=[uniform_bits, _cells_of])
_signed = Loop(_signed_scalar, _signed_reference, uses=[uniform_bits])
