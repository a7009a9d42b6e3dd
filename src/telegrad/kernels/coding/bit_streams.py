"""Bits into bytes and back, most significant first: Golomb-Rice codes, and integers of varying width.

A Rice code of parameter b splits a non-negative integer n into n >> b, in unary (so many zeros and a one), and its b
low bits. All unary parts come first and all low bits after them: the length is that of the interleaved code, and both
halves are plain loops.
"""

from __future__ import annotations

import numpy as np

from telegrad.kernels.compilation import Loop

__all__ = [
    *("best_rice", "bits_at", "get_rice", "get_varied", "packed_rice", "packed_varied"),
    *("rice_lengths", "rice_nbits", "words_of"),
]

_LARGEST_PARAMETER = 31
_0, _1, _3, _6, _7 = np.uint64(0), np.uint64(1), np.uint64(3), np.uint64(6), np.uint64(7)
_56, _63 = np.uint64(56), np.uint64(63)
_ROOM = 8  # bytes behind a stream: whole words are written, whatever has still to come


def push(out, at, fill, waiting, value, width):  # type: ignore[no-untyped-def]
    """The low `width` <= 56 bits of `value` behind the `fill` < 8 bits that wait in the leading ones of `waiting`, to
    `out` from byte number `at` on; all but `out` uint64. No branch to mispredict: eight bytes are written in any case.
    """
    low = value & ((_1 << width) - _1)
    waiting |= low << _1 << (_63 - fill - width)
    for k in range(8):
        out[at + np.uint64(k)] = np.uint8(waiting >> np.uint64(56 - 8 * k))
    fill += width
    return at + (fill >> _3), fill & _7, waiting << (fill & _56)


def words_of(data: np.ndarray) -> np.ndarray:
    """Bytes as uint64, the first byte in the leading bits, and zeros behind them: what `bits_at` reads from."""
    padded = np.zeros(8 * (len(data) // 8 + 2), dtype=np.uint8)
    padded[: len(data)] = data
    return padded.view(">u8").astype(np.uint64)


def bits_at(words, at, width):  # type: ignore[no-untyped-def]
    """The integer in `width` bits from bit number `at` on; all uint64, width below 64."""
    number, shift = at >> _6, at & _63
    both = words[number] << shift | words[number + _1] >> _1 >> (_63 - shift)
    return both >> _1 >> (_63 - width)


def rice_length(values, b):  # type: ignore[no-untyped-def]
    """The length in bits of the Rice code of `values` with parameter b."""
    total = len(values) * (b + 1)
    for i in range(len(values)):
        total += np.int64(values[i]) >> b
    return total


def rice_nbits(values: np.ndarray, b: int) -> int:
    """The length in bits of the Rice code of `values` with parameter b."""
    return int((values >> b).sum()) + len(values) * (b + 1)


def best_scalar(values):  # type: ignore[no-untyped-def]
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


def rice_lengths(counts: np.ndarray, last: int) -> np.ndarray:
    """The lengths in bits, int64, of the Rice codes with parameters 0 … last of a stream whose integers occur `counts`
    times.
    """
    lengths = np.empty(last + 1, dtype=np.int64)
    _lengths(counts, lengths)
    return lengths


def _lengths_scalar(counts, lengths):  # type: ignore[no-untyped-def]
    for b in range(len(lengths)):
        total = 0
        for value in range(len(counts)):
            total += counts[value] * ((value >> b) + b + 1)
        lengths[b] = total


def _lengths_reference(counts: np.ndarray, lengths: np.ndarray) -> None:
    for b in range(len(lengths)):
        lengths[b] = int(counts @ ((np.arange(len(counts)) >> b) + b + 1))


def packed_rice(values: np.ndarray, b: int) -> np.ndarray:
    """The Rice code of non-negative integers, in whole bytes padded with zeros, uint8."""
    packed: np.ndarray = _pack_rice(values, b)
    return packed


def pack_rice_scalar(values, b):  # type: ignore[no-untyped-def]
    nbytes = (rice_length(values, b) + 7) >> 3
    out, bit = np.zeros(nbytes + _ROOM, dtype=np.uint8), 0
    for i in range(len(values)):
        bit += np.int64(values[i]) >> b
        out[bit >> 3] |= np.uint8(128) >> np.uint8(bit & 7)
        bit += 1
    if b > 0:
        at, fill = np.uint64(bit >> 3), np.uint64(bit & 7)
        waiting, width = np.uint64(out[at]) << _56, np.uint64(b)
        for i in range(len(values)):
            at, fill, waiting = push(out, at, fill, waiting, np.uint64(values[i]), width)
    return out[:nbytes]


def _pack_rice_reference(values: np.ndarray, b: int) -> np.ndarray:
    values = values.astype(np.int64)
    ends = np.cumsum((values >> b) + 1)
    unary = np.zeros(ends[-1] if len(ends) else 0, dtype=np.uint8)
    unary[ends - 1] = 1
    low = (values[:, None] >> np.arange(b - 1, -1, -1)) & 1
    return np.packbits(np.concatenate([unary, low.astype(np.uint8).reshape(-1)]))


def get_rice(data: np.ndarray, b: int, out: np.ndarray) -> int:
    """The inverse of `packed_rice`: `out` (int64) from `data`, and how many bits it takes; −1 where a run has no end.
    Where they are more than there are, only the unary parts are read.
    """
    first = int(_get_runs(data, out))
    total = first + len(out) * b
    if first >= 0 and b and total <= 8 * len(data):
        _get_low(words_of(data[first // 8 : (total + 7) // 8]), first % 8, b, out)
    return total if first >= 0 else -1


def _get_runs_scalar(data, out):  # type: ignore[no-untyped-def]
    """The lengths of the first runs of zeros, and the number of the bit behind them; −1 where one has no end."""
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
    return bit if i == n else -1


def _get_runs_reference(data: np.ndarray, out: np.ndarray) -> int:
    ends, n = np.flatnonzero(np.unpackbits(data))[: len(out)], len(out)
    if len(ends) < n:
        return -1
    out[:] = np.diff(ends, prepend=-1) - 1
    return int(ends[-1]) + 1 if n else 0


def _get_low_scalar(words, first, b, out):  # type: ignore[no-untyped-def]
    """b bits behind each integer, from bit number `first` on."""
    at, width = np.uint64(first), np.uint64(b)
    for i in range(len(out)):
        out[i] = out[i] << b | np.int64(bits_at(words, at, width))
        at += width


def _get_low_reference(words: np.ndarray, first: int, b: int, out: np.ndarray) -> None:
    at = first + b * np.arange(len(out))
    out[:] = out << b | bits_at(words, at.astype(np.uint64), np.uint64(b)).astype(np.int64)


def packed_varied(values: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Of every non-negative int64 its own number of low bits (`widths`, any integers up to 56), in whole bytes padded
    with zeros, uint8.
    """
    packed: np.ndarray = _pack_varied(values, widths)
    return packed


def _pack_varied_scalar(values, widths):  # type: ignore[no-untyped-def]
    total = 0
    for i in range(len(widths)):
        total += widths[i]
    nbytes = (total + 7) >> 3
    out, at, fill, waiting = np.empty(nbytes + _ROOM, dtype=np.uint8), _0, _0, _0
    for i in range(len(values)):
        at, fill, waiting = push(out, at, fill, waiting, np.uint64(values[i]), np.uint64(widths[i]))
    return out[:nbytes]


def _pack_varied_reference(values: np.ndarray, widths: np.ndarray) -> np.ndarray:
    # Bit number j of all bits belongs to value `owner[j]`, `below` places above that value's lowest.
    widths = widths.astype(np.int64)
    owner = np.repeat(np.arange(len(values)), widths)
    below = np.cumsum(widths)[owner] - 1 - np.arange(len(owner))
    return np.packbits(((values[owner] >> below) & 1).astype(np.uint8))


def get_varied(data: np.ndarray, widths: np.ndarray, out: np.ndarray) -> None:
    """The inverse of `packed_varied`: `out` (int64), one integer for each of `widths`, of which `data` holds all."""
    _get_varied(words_of(data), widths, out)


def _get_varied_scalar(words, widths, out):  # type: ignore[no-untyped-def]
    at = np.uint64(0)
    for i in range(len(out)):
        width = np.uint64(widths[i])
        out[i] = np.int64(bits_at(words, at, width))
        at += width


def _get_varied_reference(words: np.ndarray, widths: np.ndarray, out: np.ndarray) -> None:
    out[:] = bits_at(words, (np.cumsum(widths) - widths).astype(np.uint64), widths.astype(np.uint64))


_lengths = Loop(_lengths_scalar, _lengths_reference)
_best = Loop(best_scalar, _best_reference, uses=[rice_length])
_pack_rice = Loop(pack_rice_scalar, _pack_rice_reference, uses=[rice_length, push])
_pack_varied = Loop(_pack_varied_scalar, _pack_varied_reference, uses=[push])
_get_runs = Loop(_get_runs_scalar, _get_runs_reference)
_get_low = Loop(_get_low_scalar, _get_low_reference, uses=[bits_at])
_get_varied = Loop(_get_varied_scalar, _get_varied_reference, uses=[bits_at])
