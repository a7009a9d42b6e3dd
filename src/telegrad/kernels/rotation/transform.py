"""Rounds of H · diag(signs) on one block, and back: the transform, the signs, and both in one compiled loop.

A round takes the block for a matrix of about √m columns: butterflies between its rows, and then between its columns,
which come in groups of four neighbours: each pass writes what it makes of the first, second, … of all groups to a
quarter of its own, so that the columns have become rows at the end. So every loop runs over adjacent entries, and what
comes out is the transform with its entries in the transposed order; swapping the sides of the matrix undoes it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from telegrad.kernels.compilation import Loop
from telegrad.kernels.random_numbers.uniforms import STRIDE, bits_at, bits_from, state_at
from telegrad.kernels.statistics.magnitudes import largest_in

__all__ = ["transformed", "turn_block", "turn_block_back"]


def _butterflies_scalar(x: Any, rows: int, width: int) -> None:
    h = 1
    while 2 * h < rows:  # two levels in one pass
        step = h * width
        for low in range(0, rows * width, 4 * step):
            a, b = x[low : low + step], x[low + step : low + 2 * step]
            c, d = x[low + 2 * step : low + 3 * step], x[low + 3 * step : low + 4 * step]
            for j in range(step):
                p, q, r, s = a[j] + b[j], a[j] - b[j], c[j] + d[j], c[j] - d[j]
                a[j], b[j], c[j], d[j] = p + r, q + s, p - r, q - s
        h *= 4
    if h < rows:
        step = h * width
        a, b = x[:step], x[step : 2 * step]
        for j in range(step):
            p, q = a[j] + b[j], a[j] - b[j]
            a[j], b[j] = p, q


def _fours(x: Any, out: Any) -> None:
    """Two levels between the four of each group of neighbours; the group's number is then the low part of a place."""
    quarter = len(x) // 4
    a, b, c, d = out[:quarter], out[quarter : 2 * quarter], out[2 * quarter : 3 * quarter], out[3 * quarter :]
    for j in range(quarter):
        at = np.uint64(4 * j)
        s, t, u, v = x[at], x[at + np.uint64(1)], x[at + np.uint64(2)], x[at + np.uint64(3)]
        a[j], b[j] = (s + t) + (u + v), (s - t) + (u - v)
        c[j], d[j] = (s + t) - (u + v), (s - t) - (u - v)


def _twos(x: Any, out: Any) -> None:
    half = len(x) // 2
    a, b = out[:half], out[half:]
    for j in range(half):
        at = np.uint64(2 * j)
        s, t = x[at], x[at + np.uint64(1)]
        a[j], b[j] = s + t, s - t


def _transform_scalar(x: Any, high: int, low: int, other: Any) -> None:
    _butterflies_scalar(x, high, low)
    left, source, target, away = low, x, other, False
    while left > 1:
        if left > 2:
            _fours(source, target)
        else:
            _twos(source, target)
        left, source, target, away = left >> 2, target, source, not away
    if away:
        x[:] = other


def _butterflies_reference(x: np.ndarray, rows: int, width: int) -> np.ndarray:
    h = 1
    while h < rows:
        pairs = x.reshape(rows // (2 * h), 2, h * width)
        x = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        h *= 2
    return x


def _transform_reference(x: np.ndarray, high: int, low: int, other: np.ndarray) -> None:
    across = _butterflies_reference(x, high, low).reshape(high, low).T.reshape(-1)
    x[:] = _butterflies_reference(across, low, high)


_transform = Loop(_transform_scalar, _transform_reference, uses=[_butterflies_scalar, _fours, _twos])


def transformed(x: np.ndarray, high: int, low: int) -> np.ndarray:
    """Sylvester's matrix times x, of high · low entries (powers of two from 8 on), in the order of the transposed
    matrix; not divided by √n.
    """
    out = x.copy()
    _transform(out, high, low, np.empty_like(x))
    return out


def _flip_scalar(bits: Any, top: int, offset: Any, inner: Any, first: int, drawn: Any) -> None:
    """Random signs, 32 from each number of the stream: bit j of number i to entry j · len(bits) / 32 + i."""
    state = state_at(offset, first)
    for i in range(len(drawn)):
        drawn[i] = bits_at(state, inner) >> np.uint64(21)
        state += STRIDE
    sign = np.uint64(1) << np.uint64(top)
    for j in range(32):
        part, shift = bits[j * len(drawn) : (j + 1) * len(drawn)], np.uint64(top - j)
        for i in range(len(drawn)):
            part[i] ^= (np.uint64(drawn[i]) << shift) & sign


def _flip_reference(
    bits: np.ndarray, top: int, offset: np.uint64, inner: np.uint64, first: int, drawn: np.ndarray
) -> None:
    drawn[:] = bits_from(offset, inner, first, len(drawn)) >> np.uint64(21)
    signs = (drawn[None, :] >> np.arange(32, dtype=np.uint32)[:, None]) & np.uint32(1)
    bits ^= signs.reshape(-1).astype(bits.dtype) << bits.dtype.type(top)


def _turn_scalar(
    x: Any, bits: Any, top: int, streams: Any, first: int, one: Any, other: Any, high: int, room: Any
) -> None:
    for i in range(len(x)):
        x[i] = x[i] * one * other
    drawn = np.empty(len(x) // 32, dtype=np.uint32)
    for number in range(len(streams)):
        _flip_scalar(bits, top, streams[number, 0], streams[number, 1], first, drawn)
        _transform_scalar(x, high, len(x) // high, room)
        high = len(x) // high


def _turn_reference(
    x: np.ndarray,
    bits: np.ndarray,
    top: int,
    streams: np.ndarray,
    first: int,
    one: Any,
    other: Any,
    high: int,
    room: np.ndarray,
) -> None:
    x *= one
    x *= other
    for offset, inner in streams:
        _flip_reference(bits, top, offset, inner, first, np.empty(len(x) // 32, dtype=np.uint32))
        _transform_reference(x, high, len(x) // high, room)
        high = len(x) // high


def _turn_back_scalar(x: Any, bits: Any, top: int, streams: Any, first: int, high: int, room: Any) -> None:
    drawn = np.empty(len(x) // 32, dtype=np.uint32)
    for number in range(len(streams) - 1, -1, -1):
        _transform_scalar(x, high, len(x) // high, room)
        _flip_scalar(bits, top, streams[number, 0], streams[number, 1], first, drawn)
        high = len(x) // high


def _turn_back_reference(
    x: np.ndarray, bits: np.ndarray, top: int, streams: np.ndarray, first: int, high: int, room: np.ndarray
) -> None:
    for offset, inner in streams[::-1]:
        _transform_reference(x, high, len(x) // high, room)
        _flip_reference(bits, top, offset, inner, first, np.empty(len(x) // 32, dtype=np.uint32))
        high = len(x) // high


_turn = Loop(_turn_scalar, _turn_reference, uses=[_flip_scalar, _transform_scalar])
_turn_back = Loop(_turn_back_scalar, _turn_back_reference, uses=[_flip_scalar, _transform_scalar])


def _signs_of(x: np.ndarray) -> tuple[np.ndarray, int]:
    """The bits of float32 or float64 numbers, and the place of their signs."""
    return x.view(np.uint32 if x.itemsize == 4 else np.uint64), 8 * x.itemsize - 1


def _high(size: int) -> int:
    """The rows of a block taken for a matrix."""
    return 1 << (size.bit_length() // 2)


def turn_block(x: np.ndarray, streams: np.ndarray, first: int, other: np.ndarray) -> float:
    """Rounds of H · diag(signs) in place, a round for each row of `streams`, whose numbers begin at `first`: what comes
    out is c times an isometry of x, and c comes back. `other`: room for as many entries.
    """
    # Brought near 1 by a power of two, in two steps that x's precision holds: nothing overflows or vanishes.
    exponent = -math.frexp(largest_in(x))[1]
    factors = (x.dtype.type(2.0**part) for part in (exponent // 2, exponent - exponent // 2))
    _turn(x, *_signs_of(x), streams, first, *factors, _high(len(x)), other)
    return float(len(x)) ** (len(streams) / 2) * 2.0**exponent


def turn_block_back(y: np.ndarray, streams: np.ndarray, first: int, other: np.ndarray) -> float:
    """The inverse rounds, in place: c times what comes out is the inverse image of y, and c comes back."""
    size = len(y)
    high = _high(size) if len(streams) % 2 == 0 else size // _high(size)
    _turn_back(y, *_signs_of(y), streams, first, high, other)
    return float(size) ** (-len(streams) / 2)
