"""The rows of trellis paths out of an entropy coder's words: both follow the states, so that each row is read with the
frequencies of its class (A28.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from telegrad.kernels.coding.rans import LOWEST, refill, refilled
from telegrad.kernels.compilation import Loop
from telegrad.kernels.trellis.paths import SEGMENT, neighbours, paths_of

__all__ = ["decoded_rows"]

_16 = np.uint64(16)
_LOW, _LOWEST = np.uint64(0xFFFF), np.uint64(LOWEST)


def _decode_scalar(
    words: Any, at: Any, lanes: Any, row_of: Any, table: Any, bits: int, moves: Any, state: Any, rows: Any
) -> int:
    read, last = np.uint64(at), np.uint64(len(words) - len(state))
    wide, mask = np.uint64(bits), np.uint64((1 << bits) - 1)
    lane_mask, columns, flat = np.uint64(len(lanes) - 1), np.uint64(moves.shape[1]), moves.reshape(-1)
    for low in range(0, len(rows), len(state)):
        if read > last:
            return -1
        for j in range(min(len(state), len(rows) - low)):
            i, own = np.uint64(low + j), np.uint64(state[j])
            lane = i & lane_mask
            x = lanes[lane]
            slot = x & mask
            row = row_of[((own & np.uint64(1)) << wide) + slot]
            entry = table[row]
            x = (entry >> _16) * (x >> wide) + slot - (entry & _LOW)
            lanes[lane] = refilled(x, words[read])
            read += np.uint64(x < _LOWEST)
            rows[i] = row
            state[j] = flat[own * columns + np.uint64(row)]
    return np.int64(read)  # type: ignore[return-value]


def _decode_reference(
    words: np.ndarray,
    at: int,
    lanes: np.ndarray,
    row_of: np.ndarray,
    table: np.ndarray,
    bits: int,
    moves: np.ndarray,
    state: np.ndarray,
    rows: np.ndarray,
) -> int:
    wide = np.uint64(bits)
    for i, path, lane in neighbours(len(rows), len(state), len(lanes)):
        own, x = state[path].astype(np.int64), lanes[lane]
        slot = x & np.uint64((1 << bits) - 1)
        row = row_of[((own & 1) << bits) + slot.astype(np.int64)]
        entry = table[row]
        x = (entry >> _16) * (x >> wide) + slot - (entry & _LOW)
        at = refill(x, words, at)
        if at < 0:
            return -1
        lanes[lane], rows[i], state[path] = x, row, moves[own, row]
    return at


_decode = Loop(_decode_scalar, _decode_reference, uses=[refilled])


def decoded_rows(
    states: np.ndarray,
    words: np.ndarray,
    row_of: np.ndarray,
    table: np.ndarray,
    bits: int,
    moves: np.ndarray,
    rows: Any,
) -> bool:
    """Fill `rows`, uint8, the first of them that of a segment, from the states and words of an encoder. False where
    these are not an encoder's work.

    `row_of`: uint8, of each class and slot; `table`: of each row its frequency and start, uint64; `moves`: the state
    that follows each state and row.
    """
    lanes, at = states.astype(np.uint64), 0
    # A step reads as many words as it has paths, at most, before it is looked whether there are so many.
    padded = np.append(words, np.zeros(paths_of(SEGMENT), dtype=np.uint16))
    for low in range(0, len(rows), SEGMENT):
        here = rows[low : low + SEGMENT]
        at = _decode(padded, at, lanes, row_of, table, bits, moves, np.zeros(paths_of(len(here)), dtype=np.uint8), here)
        if at < 0:
            return False
    return at == len(words) and bool((lanes == _LOWEST).all())
