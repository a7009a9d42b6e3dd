"""The rows of trellis paths out of an entropy coder's words: both follow the states, so that each row is read with the
frequencies of its class (A28.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from telegrad.kernels.coding.rans import LOWEST
from telegrad.kernels.compilation import Loop
from telegrad.kernels.trellis.paths import SEGMENT, paths_of

__all__ = ["decoded_rows"]

_16 = np.uint64(16)
_LOW, _LOWEST = np.uint64(0xFFFF), np.uint64(LOWEST)


def _decode_scalar(
    words: Any, lanes: Any, row_of: Any, table: Any, bits: int, moves: Any, widest: int, narrow: int, rows: Any
) -> int:
    at, last = np.uint64(0), np.uint64(len(words) - widest)
    wide, mask = np.uint64(bits), np.uint64((1 << bits) - 1)
    lane_mask, columns = np.uint64(len(lanes) - 1), np.uint64(moves.shape[1])
    flat, state = moves.reshape(-1), np.empty(widest, dtype=np.uint8)
    for first in range(0, len(rows), SEGMENT):
        count = min(SEGMENT, len(rows) - first)
        paths = widest if count == SEGMENT else narrow
        state[:] = np.uint8(0)
        for low in range(0, count, paths):
            if at > last:
                return -1
            for j in range(min(paths, count - low)):
                i, own = np.uint64(first + low + j), np.uint64(state[j])
                lane = i & lane_mask
                x = lanes[lane]
                slot = x & mask
                row = row_of[((own & np.uint64(1)) << wide) + slot]
                entry = table[row]
                x = (entry >> _16) * (x >> wide) + slot - (entry & _LOW)
                short = x < _LOWEST
                # Read in any case, and used where the lane is short: no branch to mispredict.
                refilled = x << _16 | np.uint64(words[at])
                lanes[lane] = refilled if short else x
                at += np.uint64(short)
                rows[i] = row
                state[j] = flat[own * columns + np.uint64(row)]
    return np.int64(at)  # type: ignore[return-value]


def _decode_reference(
    words: np.ndarray,
    lanes: np.ndarray,
    row_of: np.ndarray,
    table: np.ndarray,
    bits: int,
    moves: np.ndarray,
    widest: int,
    narrow: int,
    rows: np.ndarray,
) -> int:
    at, wide, last = 0, np.uint64(bits), len(words) - widest
    for first in range(0, len(rows), SEGMENT):
        count = min(SEGMENT, len(rows) - first)
        paths = widest if count == SEGMENT else narrow
        state = np.zeros(paths, dtype=np.int64)
        together = min(paths, len(lanes))  # as many as do not wait for each other
        for low in range(0, count, together):
            if low % paths == 0 and at > last:
                return -1
            i = np.arange(low, min(low + together, count))
            lane, own = (first + i) % len(lanes), state[i % paths]
            x = lanes[lane]
            slot = x & np.uint64((1 << bits) - 1)
            row = row_of[((own & 1) << bits) + slot.astype(np.int64)]
            entry = table[row]
            x = (entry >> _16) * (x >> wide) + slot - (entry & _LOW)
            short = x < _LOWEST
            x[short] = x[short] << _16 | words[at : at + int(short.sum())]
            at += int(short.sum())
            lanes[lane], rows[first + i], state[i % paths] = x, row, moves[own, row]
    return at


_decode = Loop(_decode_scalar, _decode_reference)


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
    lanes, widest = states.astype(np.uint64), paths_of(SEGMENT)
    # A step reads as many words as it has paths, at most, before it is looked whether there are so many.
    padded = np.append(words, np.zeros(widest, dtype=np.uint16))
    narrow = paths_of(len(rows) % SEGMENT)
    at = _decode(padded, lanes, row_of, table, bits, moves, widest, narrow, rows)
    return at == len(words) and bool((lanes == _LOWEST).all())
