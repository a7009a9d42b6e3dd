"""Subtractive dithering through a trellis: paths, what an entropy coder sees of them, and back (A28.6).

Everything is in units of the step 2Δ. With u uniform on [0, 1) an entry y is dithered to y + 2u and lies among the
multiples of ½ that its state's class allows: the integers m, plus ½ in the odd class. So there are two candidates, the
integers below and above t = y + 2u − class / 2, one of each subset m mod 2. With 2u − class / 2 = d + n, n whole and
the dither d in [−½, ½), the symbol is q = m − n and stands for q − d, as in A26: it is coded with its probability
given d.
The class comes from the path, which starts in state 0; so whoever has the symbols can follow it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.coding.rans import LOWEST, found_symbol
from telegrad.kernels.compilation import Loop
from telegrad.kernels.quantising.dithered_rounding import BEYOND, SLOTS, cell_of
from telegrad.kernels.random_numbers.uniforms import STRIDE, UNIT, bits_at, state_at, uniform_bits
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import in_blocks
from telegrad.kernels.trellis.paths import FAR, SEGMENT, advanced, advanced_through, cheapest, machine, paths_of
from telegrad.random import Key

__all__ = ["DENSITIES", "decoded_path", "dithered_paths", "path_error", "path_rows", "undithered_path"]

_1, _16, _52, _53 = np.uint64(1), np.uint64(16), np.uint64(52), np.uint64(53)
_HALF, _WHOLE = np.uint64(1 << 52), np.uint64(1 << 53)
_LOWEST = np.uint64(LOWEST)
DENSITIES = {
    8: np.array([1.4418, 1.2646, 0.999, 0.6887, 0.3954, 0.1619, 0.0424, 0.0058, 0.0004, 0.0]),
    256: np.array([1.5147, 1.3229, 0.9956, 0.6269, 0.3367, 0.1435, 0.0472, 0.0108, 0.0015, 0.0002]),
}
"""The densities of errors from 0 to .1, .2, … steps on either side, by simulation."""
_ERRORS = {8: (0.0649, 0.105), 256: (0.0613, 0.22)}
_SINGLE = 16  # magnitudes from here on are coded in buckets


def turned(bits: Any, parity: Any) -> Any:
    """(2u − class / 2 + ½) in units of 2^−53: n and then d + ½."""
    return (bits << _1) + (_1 - parity) * _HALF


def column_of(symbol: Any, dither: Any) -> Any:
    """The column of a symbol as it would be were the dither (in units of 2^−53, plus ½) positive."""
    folded = -symbol if dither < _HALF else symbol
    magnitude, width = abs(symbol), 0
    if magnitude < _SINGLE:
        return 2 * magnitude - np.int64(folded > 0)
    while magnitude >> width >= _SINGLE:
        width += 1
    return 2 * (8 + 8 * width + ((magnitude >> width) & 7)) - np.int64(folded > 0)


def _forward_scalar(
    x: Any, step: float, offset: Any, inner: Any, first: int, before: Any, branch: Any, last: Any, taken: Any
) -> None:
    steps, states, paths = taken.shape
    price, stream = np.empty((4, paths), dtype=np.float32), state_at(offset, first)
    old, new = np.empty((states, paths), dtype=np.float32), np.empty((states, paths), dtype=np.float32)
    old[:] = FAR
    old[0] = np.float32(0.0)
    for place in range(steps):
        for i in range(paths):
            at = place * paths + i
            y = np.float64(x[at]) / step if at < len(x) else 0.0
            t = y + np.float64(bits_at(stream, inner)) * UNIT * 2.0
            stream += STRIDE
            for parity in range(2):
                below = np.floor(t)
                off, odd = np.float32(t - below), np.int64(below) & 1
                up = np.float32(1.0) - off
                price[2 * parity + odd, i] = off * off
                price[2 * parity + 1 - odd, i] = up * up
                t -= 0.5
        advanced(price, old, before, branch, new, taken[place])
        old, new = new, old
    cheapest(old, last)


def _uniforms(offset: np.uint64, inner: np.uint64, first: int, n: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        return uniform_bits(offset, inner, np.arange(first, first + n, dtype=np.uint64))


def _forward_reference(
    x: np.ndarray,
    step: float,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    before: np.ndarray,
    branch: np.ndarray,
    last: np.ndarray,
    taken: np.ndarray,
) -> None:
    steps, _, paths = taken.shape
    y = np.zeros(steps * paths)
    y[: len(x)] = x.astype(np.float64) / step
    t = y + _uniforms(offset, inner, first, len(y)) * UNIT * 2.0
    price, at = np.empty((len(y), 4), dtype=np.float32), np.arange(len(y))
    for parity in range(2):
        below = np.floor(t)
        off, odd = (t - below).astype(np.float32), below.astype(np.int64) & 1
        up = np.float32(1.0) - off
        price[at, 2 * parity + odd], price[at, 2 * parity + 1 - odd] = off * off, up * up
        t = t - 0.5
    advanced_through(price.reshape(steps, paths, 4), before, branch, last, taken)


def _back_scalar(
    x: Any,
    step: float,
    offset: Any,
    inner: Any,
    first: int,
    last: Any,
    taken: Any,
    before: Any,
    branch: Any,
    out: Any,
) -> None:
    steps, _, paths = taken.shape
    for place in range(steps - 1, -1, -1):
        stream = state_at(offset, first + place * paths)
        for i in range(paths):
            state, at = last[i], place * paths + i
            which = np.int64(taken[place, state, i])
            subset = branch[state, which]
            bits = bits_at(stream, inner)
            stream += STRIDE
            if at < len(x):
                parity = subset >> 1
                t = np.float64(x[at]) / step + np.float64(bits) * UNIT * 2.0 - 0.5 * np.float64(parity)
                m = np.int64(np.floor(t))
                m += (m ^ subset) & 1
                out[at] = m - np.int64(turned(bits, np.uint64(parity)) >> _53)
            last[i] = before[state, which]


def _back_reference(
    x: np.ndarray,
    step: float,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    last: np.ndarray,
    taken: np.ndarray,
    before: np.ndarray,
    branch: np.ndarray,
    out: np.ndarray,
) -> None:
    steps, _, paths = taken.shape
    subset, state = np.empty((steps, paths), dtype=np.int64), last.copy()
    for place in range(steps - 1, -1, -1):
        which = taken[place, state, np.arange(paths)].astype(np.int64)
        subset[place], state = branch[state, which], before[state, which]
    last[:], subset = state, subset.reshape(-1)[: len(x)]
    parity, bits = subset >> 1, _uniforms(offset, inner, first, len(x))
    m = np.floor(x.astype(np.float64) / step + bits * UNIT * 2.0 - 0.5 * parity).astype(np.int64)
    m += (m ^ subset) & 1
    out[:] = m - (turned(bits, parity.astype(np.uint64)) >> _53).astype(np.int64)


def dithered_paths(v: Tensor, step: float, seed: int, states: int) -> Tensor:
    """The symbols of v, segment by segment, with the dither of `seed`; int32."""
    whole, out, own, stream = plain(v), np.empty(len(v), dtype=np.int32), machine(states), Key(seed).stream

    def work(start: int, stop: int) -> None:
        x, paths = whole[start:stop], paths_of(stop - start)
        last, taken = np.empty(paths, dtype=np.int64), np.empty((-(-len(x) // paths), states, paths), dtype=np.uint8)
        _forward(x, step, *stream, start, own.before, own.branch, last, taken)
        _back(x, step, *stream, start, last, taken, own.before, own.branch, out[start:stop])

    in_blocks(work, len(v), SEGMENT)
    return torch.from_numpy(out)


def path_error(states: int, n: int) -> float:
    """E (y − ŷ)² of the entries of n in units of the step, by simulation: 1/12 without paths (one state); nearly the
    same at the start of a path.
    """
    if states == 1:
        return 1 / 12
    far, start = _ERRORS[states]
    return min(1 / 12, far + start / -(-min(n, SEGMENT) // paths_of(n)))


def _rows_scalar(
    symbols: Any,
    columns: int,
    offset: Any,
    inner: Any,
    first: int,
    after: Any,
    widest: int,
    narrow: int,
    slots: Any,
    beyond: Any,
    out: Any,
) -> None:
    state = np.empty(widest, dtype=np.int64)
    for low in range(0, len(symbols), SEGMENT):
        count = min(SEGMENT, len(symbols) - low)
        mask, stream = (widest if count == SEGMENT else narrow) - 1, state_at(offset, first + low)
        state[:] = 0
        for i in range(count):
            own, symbol = state[i & mask], np.int64(symbols[low + i])
            full = turned(bits_at(stream, inner), np.uint64(own & 1))
            stream += STRIDE
            dither = full & (_WHOLE - _1)
            cell = np.int64(cell_of(min(dither, _WHOLE - dither), slots, beyond))
            out[low + i] = cell * columns + column_of(symbol, dither)
            state[i & mask] = after[own, (symbol + np.int64(full >> _53)) & 1]


def _followed(
    symbols: np.ndarray,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    after: np.ndarray,
    widest: int,
    narrow: int,
) -> np.ndarray:
    """d + ½ of every symbol in units of 2^−53, uint64."""
    bits, found = _uniforms(offset, inner, first, len(symbols)), np.empty(len(symbols), dtype=np.uint64)
    for low in range(0, len(symbols), SEGMENT):
        count = min(SEGMENT, len(symbols) - low)
        paths = widest if count == SEGMENT else narrow
        state = np.zeros(paths, dtype=np.int64)
        for at in range(low, low + count, paths):
            here = slice(at, min(at + paths, low + count))
            own = state[: here.stop - at]
            full = turned(bits[here], (own & 1).astype(np.uint64))
            found[here] = full & (_WHOLE - _1)
            odd = (symbols[here].astype(np.int64) + (full >> _53).astype(np.int64)) & 1
            state[: here.stop - at] = after[own, odd]
    return found


def _columns(symbols: np.ndarray, dither: np.ndarray) -> np.ndarray:
    symbol = symbols.astype(np.int64)
    magnitude, folded = np.abs(symbol), np.where(dither < _HALF, -symbol, symbol)
    width = np.maximum(np.frexp(np.maximum(magnitude, 1).astype(np.float64))[1].astype(np.int64) - 4, 0)
    bucket = np.where(width > 0, 8 + 8 * width + ((magnitude >> width) & 7), magnitude)
    return 2 * bucket - (folded > 0)


def _cells(dither: np.ndarray, slots: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    distance = np.minimum(dither, _WHOLE - dither)
    return np.searchsorted(beyond, distance, side="right")


def _rows_reference(
    symbols: np.ndarray,
    columns: int,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    after: np.ndarray,
    widest: int,
    narrow: int,
    slots: np.ndarray,
    beyond: np.ndarray,
    out: np.ndarray,
) -> None:
    dither = _followed(symbols, offset, inner, first, after, widest, narrow)
    out[:] = _cells(dither, slots, beyond) * columns + _columns(symbols, dither)


def path_rows(symbols: np.ndarray, columns: int, seed: int, first: int, states: int) -> np.ndarray:
    """What the coder sees of the symbols from number `first`, the start of a segment, on: the cell of the dither times
    `columns`, plus the column of the symbol as it would be were the dither positive; uint16.
    """
    out = np.empty(len(symbols), dtype=np.uint16)
    _rows(symbols, columns, *Key(seed).stream, first, machine(states).after, *_paths(len(symbols)), SLOTS, BEYOND, out)
    return out


def _paths(n: int) -> tuple[int, int]:
    """How many paths a whole segment has, and the last one of n entries."""
    return paths_of(SEGMENT), paths_of(n % SEGMENT)


def _undithered_scalar(
    symbols: Any, step: float, offset: Any, inner: Any, first: int, after: Any, widest: int, narrow: int, out: Any
) -> None:
    state = np.empty(widest, dtype=np.int64)
    for low in range(0, len(symbols), SEGMENT):
        count = min(SEGMENT, len(symbols) - low)
        mask, stream = (widest if count == SEGMENT else narrow) - 1, state_at(offset, first + low)
        state[:] = 0
        for i in range(count):
            own, symbol = state[i & mask], np.int64(symbols[low + i])
            full = turned(bits_at(stream, inner), np.uint64(own & 1))
            stream += STRIDE
            dither = np.float64(full & (_WHOLE - _1)) * UNIT - 0.5
            out[low + i] = (np.float64(symbol) - dither) * step
            state[i & mask] = after[own, (symbol + np.int64(full >> _53)) & 1]


def _undithered_reference(
    symbols: np.ndarray,
    step: float,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    after: np.ndarray,
    widest: int,
    narrow: int,
    out: np.ndarray,
) -> None:
    dither = _followed(symbols, offset, inner, first, after, widest, narrow)
    with np.errstate(over="ignore"):
        out[:] = (symbols.astype(np.float64) - (dither * UNIT - 0.5)) * step


def undithered_path(symbols: np.ndarray, step: float, seed: int, first: int, states: int, out: np.ndarray) -> None:
    """(symbol − dither) · step of symbols from number `first`, the start of a segment, on; float32 or float64."""
    _undithered(symbols, step, *Key(seed).stream, first, machine(states).after, *_paths(len(symbols)), out)


def _decode_scalar(
    stream_words: Any,
    lanes: Any,
    guess: Any,
    starts: Any,
    bits: int,
    offset: Any,
    inner: Any,
    first: int,
    after: Any,
    widest: int,
    narrow: int,
    slots: Any,
    beyond: Any,
    magnitudes: Any,
    ones: Any,
    out: Any,
) -> int:
    at, last = np.uint64(0), np.uint64(len(stream_words) - widest)
    wide, slot_mask, lane_mask = np.uint64(bits), np.uint64((1 << bits) - 1), len(lanes) - 1
    low_bits, few, columns = np.uint64(bits - 8), np.uint64(8), np.uint64(starts.shape[1])
    first_guess, flat = guess.reshape(-1), starts.reshape(-1)
    far, state = 0, np.empty(widest, dtype=np.int64)
    for low in range(0, len(out), SEGMENT):
        count = min(SEGMENT, len(out) - low)
        paths, stream = widest if count == SEGMENT else narrow, state_at(offset, first + low)
        state[:] = 0
        for start in range(0, count, paths):
            if at > last:
                return -1
            for j in range(min(paths, count - start)):
                i, own = low + start + j, state[j]
                full = turned(bits_at(stream, inner), np.uint64(own & 1))
                stream += STRIDE
                dither = full & (_WHOLE - _1)
                cell = np.uint64(cell_of(min(dither, _WHOLE - dither), slots, beyond))
                x = lanes[i & lane_mask]
                slot = x & slot_mask
                begin = cell * columns
                column = found_symbol(slot, np.uint64(first_guess[(cell << few) + (slot >> low_bits)]), begin, flat)
                x = (flat[begin + column + _1] - flat[begin + column]) * (x >> wide) + slot - flat[begin + column]
                short = x < _LOWEST
                refilled = x << _16 | np.uint64(stream_words[at])
                lanes[i & lane_mask] = refilled if short else x
                at += np.uint64(short)
                symbol = magnitudes[column]
                if symbol >= _SINGLE:
                    if far == len(ones):
                        return -1
                    symbol += np.int64(ones[far])
                    far += 1
                if (column & _1) == np.uint64(dither < _HALF):
                    symbol = -symbol
                out[i] = symbol
                state[j] = after[own, (symbol + np.int64(full >> _53)) & 1]
    return np.int64(at) if far == len(ones) else -1  # type: ignore[return-value]


def _decode_reference(
    stream_words: np.ndarray,
    lanes: np.ndarray,
    guess: np.ndarray,
    starts: np.ndarray,
    bits: int,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    after: np.ndarray,
    widest: int,
    narrow: int,
    slots: np.ndarray,
    beyond: np.ndarray,
    magnitudes: np.ndarray,
    ones: np.ndarray,
    out: np.ndarray,
) -> int:
    at, last, far, wide = 0, len(stream_words) - widest, 0, np.uint64(bits)
    uniform, width = _uniforms(offset, inner, first, len(out)), np.diff(starts)
    for low in range(0, len(out), SEGMENT):
        count = min(SEGMENT, len(out) - low)
        paths = widest if count == SEGMENT else narrow
        state = np.zeros(paths, dtype=np.int64)
        together = min(paths, len(lanes))  # as many as do not wait for each other
        for start in range(0, count, together):
            if start % paths == 0 and at > last:
                return -1
            i = low + np.arange(start, min(start + together, count))
            lane, path = i % len(lanes), (i - low) % paths
            own = state[path]
            full = turned(uniform[i], (own & 1).astype(np.uint64))
            dither = full & (_WHOLE - _1)
            cell = _cells(dither, slots, beyond)
            x = lanes[lane]
            slot = x & np.uint64((1 << bits) - 1)
            column = (starts[cell, 1:] <= slot[:, None]).sum(1)
            x = width[cell, column] * (x >> wide) + slot - starts[cell, column]
            short = x < _LOWEST
            x[short] = x[short] << _16 | stream_words[at : at + int(short.sum())]
            at += int(short.sum())
            lanes[lane] = x
            symbol = magnitudes[column]
            beyond_single = np.flatnonzero(symbol >= _SINGLE)
            if far + len(beyond_single) > len(ones):
                return -1
            symbol[beyond_single] += ones[far : far + len(beyond_single)]
            far += len(beyond_single)
            symbol = np.where((column & 1) == (dither < _HALF), -symbol, symbol)
            out[i] = symbol
            state[path] = after[own, (symbol + (full >> _53).astype(np.int64)) & 1]
    return at if far == len(ones) else -1


def decoded_path(
    lanes: np.ndarray,
    stream_words: np.ndarray,
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
    x, (widest, narrow) = lanes.astype(np.uint64), _paths(len(out))
    padded = np.append(stream_words, np.zeros(widest, dtype=np.uint16))
    at = _decode(
        *(padded, x, guess, starts, bits, *Key(seed).stream, first, machine(states).after, widest, narrow),
        *(SLOTS, BEYOND, magnitudes, ones, out),
    )
    return at == len(stream_words) and bool((x == _LOWEST).all())


_forward = Loop(_forward_scalar, _forward_reference, uses=[advanced, cheapest, bits_at, state_at])
_back = Loop(_back_scalar, _back_reference, uses=[turned, bits_at, state_at])
_rows = Loop(_rows_scalar, _rows_reference, uses=[turned, column_of, cell_of, bits_at, state_at])
_undithered = Loop(_undithered_scalar, _undithered_reference, uses=[turned, bits_at, state_at])
_decode = Loop(_decode_scalar, _decode_reference, uses=[turned, cell_of, found_symbol, bits_at, state_at])
