"""Bits into bytes and back, most significant first: Golomb-Rice codes, and integers of varying width.

A Rice code of parameter b splits a non-negative integer n into n >> b, in unary (so many zeros and a one), and its b
low bits. All unary parts come first and all low bits after them: the length is that of the interleaved code, and both
halves are plain loops.
"""

from __future__ import annotations

import numpy as np

from telegrad.kernels.compiled import Loop

__all__ = ["best_rice", "get_rice", "get_varied", "put_rice", "put_varied", "rice_nbits"]

_LARGEST_PARAMETER = 31


def push(out, at, fill, waiting, value, width):  # type: ignore[no-untyped-def]
    """`value`, of up to 56 bits, behind the `fill` bits that wait for their byte; whole bytes go to `out`."""
    waiting, fill = (waiting << width) | value, fill + width
    while fill >= 8:
        fill -= 8
        out[at] = (waiting >> fill) & 255
        at += 1
    return at, fill, waiting & ((1 << fill) - 1)


def pull(data, at, fill, waiting, width):  # type: ignore[no-untyped-def]
    """The inverse: the next integer of `width` bits comes last."""
    while fill < width:
        waiting, fill = (waiting << 8) | np.int64(data[at]), fill + 8
        at += 1
    fill -= width
    return at, fill, waiting & ((1 << fill) - 1), waiting >> fill


def rice_length(values, b):  # type: ignore[no-untyped-def]
    """The length in bits of the Rice code of `values` with parameter b."""
    total = len(values) * (b + 1)
    for i in range(len(values)):
        total += values[i] >> b
    return total


def rice_nbits(values: np.ndarray, b: int) -> int:
    """The length in bits of the Rice code of `values` with parameter b."""
    return int((values >> b).sum()) + len(values) * (b + 1)


def _best_scalar(values):  # type: ignore[no-untyped-def]
    """From a guess downhill: the length is convex in b, so where one starts does not matter."""
    total, largest = 0.0, np.int64(0)
    for i in range(len(values)):
        total += np.float64(values[i])
        largest = max(largest, values[i])
    b = 0
    while b < _LARGEST_PARAMETER and total >= np.float64(len(values)) * (2 << b):
        b += 1
    length = rice_length(values, b)
    while b > 0:
        shorter = rice_length(values, b - 1)
        if shorter > length:
            break
        b, length = b - 1, shorter
    while b < _LARGEST_PARAMETER:
        shorter = rice_length(values, b + 1)
        if shorter >= length:
            break
        b, length = b + 1, shorter
    return b, length, largest


def _best_reference(values: np.ndarray) -> tuple[int, int, int]:
    # Far below the logarithm of the mean the lengths could exceed 64 bits.
    guess = min(_LARGEST_PARAMETER, int(np.log2(max(1.0, float(values.mean())))))
    lengths = [(rice_nbits(values, b), b) for b in range(max(0, guess - 2), min(_LARGEST_PARAMETER, guess + 2) + 1)]
    length, b = min(lengths)
    return b, length, int(values.max())


def best_rice(values: np.ndarray) -> tuple[int, int, int]:
    """The parameter, 0 … 31, with the shortest Rice code of non-negative int64 `values`, that length in bits, and the
    largest value.
    """
    return _best(values) if len(values) else (0, 0, 0)


def _put_rice_scalar(values, b, out):  # type: ignore[no-untyped-def]
    """The Rice code of `values` to the zero bytes `out`."""
    bit = 0
    for i in range(len(values)):
        bit += values[i] >> b
        out[bit >> 3] |= np.uint8(128) >> np.uint8(bit & 7)
        bit += 1
    if b == 0:
        return
    at, fill = bit >> 3, bit & 7
    waiting = np.int64(out[at]) >> (8 - fill) if fill else np.int64(0)
    for i in range(len(values)):
        at, fill, waiting = push(out, at, fill, waiting, values[i] & ((1 << b) - 1), b)
    if fill:
        out[at] = (waiting << (8 - fill)) & 255


def _put_rice_reference(values: np.ndarray, b: int, out: np.ndarray) -> None:
    ends = np.cumsum((values >> b) + 1)
    unary = np.zeros(ends[-1] if len(ends) else 0, dtype=np.uint8)
    unary[ends - 1] = 1
    low = (values[:, None] >> np.arange(b - 1, -1, -1)) & 1
    out[:] = np.packbits(np.concatenate([unary, low.astype(np.uint8).reshape(-1)]))


def _get_rice_scalar(data, b, out):  # type: ignore[no-untyped-def]
    """The inverse: `out` (int64) from `data`, and how many bits it takes; −1 where a run has no end. Where they are
    more than there are, only the unary parts are read.
    """
    i, run, bit, n = 0, 0, 0, len(out)
    for at in range(len(data)):
        if i == n:
            break
        byte = np.int64(data[at])
        if byte == 0:
            run += 8
            continue
        for place in range(8):
            if byte & (128 >> place):
                out[i] = run
                run = 0
                i += 1
                if i == n:
                    bit = 8 * at + place + 1
                    break
            else:
                run += 1
    if i < n:
        return -1
    total = bit + n * b
    if b == 0 or total > 8 * len(data):
        return total
    at, fill, waiting = bit >> 3, 0, np.int64(0)
    if bit & 7:
        at, fill, waiting = at + 1, 8 - (bit & 7), np.int64(data[at]) & ((1 << (8 - (bit & 7))) - 1)
    for i in range(n):
        at, fill, waiting, low = pull(data, at, fill, waiting, b)
        out[i] = out[i] << b | low
    return total


def _get_rice_reference(data: np.ndarray, b: int, out: np.ndarray) -> int:
    bits = np.unpackbits(data)
    ends, n = np.flatnonzero(bits)[: len(out)], len(out)
    if len(ends) < n:
        return -1
    out[:] = np.diff(ends, prepend=-1) - 1
    first = int(ends[-1]) + 1 if n else 0
    if first + n * b <= len(bits):
        for column in bits[first : first + n * b].reshape(n, b).T:
            out[:] = out << 1 | column
    return first + n * b


def _put_varied_scalar(values, widths, out):  # type: ignore[no-untyped-def]
    """Each integer with its own width <= 56, to the zero bytes `out`."""
    at, fill, waiting = 0, 0, np.int64(0)
    for i in range(len(values)):
        at, fill, waiting = push(out, at, fill, waiting, values[i], widths[i])
    if fill:
        out[at] = (waiting << (8 - fill)) & 255


def _put_varied_reference(values: np.ndarray, widths: np.ndarray, out: np.ndarray) -> None:
    # Bit number j of all bits belongs to value `owner[j]`, `below` places above that value's lowest.
    owner = np.repeat(np.arange(len(values)), widths)
    below = np.cumsum(widths)[owner] - 1 - np.arange(len(owner))
    out[:] = np.packbits(((values[owner] >> below) & 1).astype(np.uint8))


def _get_varied_scalar(data, widths, out):  # type: ignore[no-untyped-def]
    """The inverse: `out` (int64), one integer for each of `widths`."""
    at, fill, waiting = 0, 0, np.int64(0)
    for i in range(len(out)):
        at, fill, waiting, out[i] = pull(data, at, fill, waiting, widths[i])


def _get_varied_reference(data: np.ndarray, widths: np.ndarray, out: np.ndarray) -> None:
    owner = np.repeat(np.arange(len(out)), widths)
    below = np.cumsum(widths)[owner] - 1 - np.arange(len(owner))
    out[:] = 0
    np.add.at(out, owner, np.unpackbits(data)[: len(owner)].astype(np.int64) << below)


_best = Loop(_best_scalar, _best_reference, uses=[rice_length])
put_rice = Loop(_put_rice_scalar, _put_rice_reference, uses=[push])
get_rice = Loop(_get_rice_scalar, _get_rice_reference, uses=[pull])
put_varied = Loop(_put_varied_scalar, _put_varied_reference, uses=[push])
get_varied = Loop(_get_varied_scalar, _get_varied_reference, uses=[pull])
