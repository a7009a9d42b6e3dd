"""The symbols of dithered trellis paths out of an entropy coder's words: both follow the paths, so that each symbol is
read with the frequencies that its dither gives (A28.6).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from telegrad.kernels.coding.rans import LOWEST, found_symbol, refill, refilled
from telegrad.kernels.compilation import Loop
from telegrad.kernels.quantising.dithered_rounding import BEYOND, SLOTS, cell_of
from telegrad.kernels.random_numbers.uniforms import STRIDE, bits_at, bits_from, state_at
from telegrad.kernels.trellis.followed_paths import DITHER, HALF, SINGLE, WHOLE, cells, segments, turned
from telegrad.kernels.trellis.paths import SEGMENT, neighbours, paths_of

__all__ = ["decoded_path"]

_1, _53 = np.uint64(1), np.uint64(53)
_LOWEST = np.uint64(LOWEST)


def _decode_scalar(
    words: Any,
    at: Any,
    lanes: Any,
    guess: Any,
    starts: Any,
    bits: int,
    paths: Any,
    slots: Any,
    beyond: Any,
    magnitudes: Any,
    ones: Any,
    far: int,
    out: Any,
) -> Any:
    offset, inner, first, after, state = paths
    read, last, lane_mask = np.uint64(at), np.uint64(len(words) - len(state)), len(lanes) - 1
    wide, slot_mask, stream = np.uint64(bits), np.uint64((1 << bits) - 1), state_at(offset, first)
    low_bits, few, columns = np.uint64(bits - 8), np.uint64(8), np.uint64(starts.shape[1])
    first_guess, flat = guess.reshape(-1), starts.reshape(-1)
    for low in range(0, len(out), len(state)):
        if read > last:
            return np.int64(-1), far
        for j in range(min(len(state), len(out) - low)):
            i, own = low + j, state[j]
            full = turned(bits_at(stream, inner), np.uint64(own & 1))
            stream += STRIDE
            dither = full & DITHER
            cell = np.uint64(cell_of(min(dither, WHOLE - dither), slots, beyond))
            x = lanes[i & lane_mask]
            slot = x & slot_mask
            begin = cell * columns
            column = found_symbol(slot, np.uint64(first_guess[(cell << few) + (slot >> low_bits)]), begin, flat)
            x = (flat[begin + column + _1] - flat[begin + column]) * (x >> wide) + slot - flat[begin + column]
            lanes[i & lane_mask] = refilled(x, words[read])
            read += np.uint64(x < _LOWEST)
            symbol = magnitudes[column]
            if symbol >= SINGLE:
                if far == len(ones):
                    return np.int64(-1), far
                symbol += np.int64(ones[far])
                far += 1
            if (column & _1) == np.uint64(dither < HALF):
                symbol = -symbol
            out[i] = symbol
            state[j] = after[own, (symbol + np.int64(full >> _53)) & 1]
    return np.int64(read), far


def _decode_reference(
    words: np.ndarray,
    at: int,
    lanes: np.ndarray,
    guess: np.ndarray,
    starts: np.ndarray,
    bits: int,
    paths: Any,
    slots: np.ndarray,
    beyond: np.ndarray,
    magnitudes: np.ndarray,
    ones: np.ndarray,
    far: int,
    out: np.ndarray,
) -> tuple[int, int]:
    offset, inner, first, after, state = paths
    uniform, width, wide = bits_from(offset, inner, first, len(out)), np.diff(starts), np.uint64(bits)
    for i, path, lane in neighbours(len(out), len(state), len(lanes)):
        own = state[path]
        full = turned(uniform[i], (own & 1).astype(np.uint64))
        dither = full & DITHER
        cell, x = cells(dither, beyond), lanes[lane]
        slot = x & np.uint64((1 << bits) - 1)
        column = (starts[cell, 1:] <= slot[:, None]).sum(1)
        x = width[cell, column] * (x >> wide) + slot - starts[cell, column]
        at = refill(x, words, at)
        symbol = magnitudes[column]
        in_buckets = np.flatnonzero(symbol >= SINGLE)
        if at < 0 or far + len(in_buckets) > len(ones):
            return -1, far
        symbol[in_buckets] += ones[far : far + len(in_buckets)]
        far += len(in_buckets)
        symbol = np.where((column & 1) == (dither < HALF), -symbol, symbol)
        lanes[lane], out[i] = x, symbol
        state[path] = after[own, (symbol + (full >> _53).astype(np.int64)) & 1]
    return at, far


_decode = Loop(_decode_scalar, _decode_reference, uses=[turned, cell_of, found_symbol, refilled, bits_at, state_at])


def decoded_path(
    lanes: np.ndarray,
    words: np.ndarray,
    guess: np.ndarray,
    starts: np.ndarray,
    bits: int,
    seed: int,
    first: int,
    states: int,
    magnitudes: np.ndarray,
    ones: np.ndarray,
    out: np.ndarray,
) -> bool:
    """Fill `out` with symbols from number `first`, the start of a segment, on, of the states and words of an encoder;
    False where these are not an encoder's work.

    `magnitudes`: the least in the bucket of each column, int64; `ones`: the last bits of those from 16 on, uint8.
    """
    x, at, far = lanes.astype(np.uint64), 0, 0
    # A step reads as many words as it has paths, at most, before it is looked whether there are so many.
    padded = np.append(words, np.zeros(paths_of(SEGMENT), dtype=np.uint16))
    for here, paths in segments(len(out), seed, first, states):
        at, far = _decode(*(padded, at, x, guess, starts, bits, paths, SLOTS, BEYOND, magnitudes, ones, far, out[here]))
        if at < 0:
            return False
    return at == len(words) and far == len(ones) and bool((x == _LOWEST).all())
