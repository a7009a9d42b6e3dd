"""Signs: of entries that are kept with a probability proportional to their magnitude, and apart from what follows."""

from __future__ import annotations

import numpy as np

from telegrad.kernels.coding.symbols import UNSIGNED
from telegrad.kernels.compilation import Loop
from telegrad.kernels.random_numbers.uniforms import uniform_at, uniform_source, uniforms_from
from telegrad.random import Key

__all__ = ["LEAST", "signs_apart", "signs_in_proportion"]

LEAST = 2.0**-1022
"""The smallest float64 number with a leading one."""


def signs_in_proportion(v: np.ndarray, key: Key) -> tuple[float, np.ndarray, np.ndarray]:
    """(m, which, signs): m = max |v_j|; the j with u_j · m < |v_j|, u = `key.uniform(n)`, increasing, int64; the signs
    of these v_j, int8. `v`: float64, shape (n,); entries below `LEAST` are passed over, as if they were not there.
    """
    largest, which, signs = _signs(v, *uniform_source(key, len(v)))
    return float(largest), which, signs


def _signs_scalar(v, given, offset, inner):  # type: ignore[no-untyped-def]
    largest = 0.0
    for i in range(len(v)):
        largest = max(largest, abs(v[i]))
    which, signs = np.empty(len(v) + 1, dtype=np.int64), np.empty(len(v) + 1, dtype=np.int8)
    n, number = 0, 0
    for i in range(len(v)):
        # Written in any case, kept where drawn: nothing to predict.
        which[n], signs[n], magnitude = i, 1 if v[i] > 0.0 else -1, abs(v[i])
        if magnitude >= LEAST:
            n += uniform_at(given, offset, inner, number) * largest < magnitude
            number += 1
    return largest, which[:n], signs[:n]


def _signs_reference(
    v: np.ndarray, given: np.ndarray, offset: np.uint64, inner: np.uint64
) -> tuple[float, np.ndarray, np.ndarray]:
    present = np.flatnonzero(np.abs(v) >= LEAST)
    u = uniforms_from(given, offset, inner, 0, len(present))
    largest = float(np.abs(v).max(initial=0.0))
    which = present[u * largest < np.abs(v[present])]
    return largest, which, np.sign(v[which]).astype(np.int8)


def signs_apart(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(a bit each, set for the negative ones, in whole bytes, leading bit first; |symbol| − 1, in an unsigned type of
    the same size, int64 for int64) of signed integers other than zero.
    """
    n = len(symbols)
    bits, rest = np.zeros((n + 7) // 8, dtype=np.uint8), np.empty(n, UNSIGNED.get(symbols.dtype, symbols.dtype))
    _apart(symbols, bits, rest)
    return bits, rest


def _apart_scalar(symbols, bits, rest):  # type: ignore[no-untyped-def]
    for i in range(len(symbols)):
        symbol = np.int64(symbols[i])
        bits[i >> 3] |= np.uint8((symbol < 0) << (7 - (i & 7)))
        rest[i] = abs(symbol) - 1


def _apart_reference(symbols: np.ndarray, bits: np.ndarray, rest: np.ndarray) -> None:
    bits[:] = np.packbits(symbols < 0)
    rest[:] = np.abs(symbols.astype(np.int64)) - 1


_apart = Loop(_apart_scalar, _apart_reference)
_signs = Loop(_signs_scalar, _signs_reference, uses=[uniform_at])
