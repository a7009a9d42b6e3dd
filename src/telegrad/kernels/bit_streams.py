"""Bits into bytes and back, most significant first: integers of fixed or varying width, and in unary."""

from __future__ import annotations

import numpy as np

from telegrad.kernels.compiled import Loop

__all__ = ["get_fixed", "get_unary", "get_varied", "put_fixed", "put_unary", "put_varied"]


def _put_fixed_scalar(values, width, first, out):  # type: ignore[no-untyped-def]
    """Integers below 2^width, width <= 62, to the zero bits of `out` from bit `first` on."""
    # The bits not yet in a whole byte wait in `waiting`; wide integers come in two parts.
    at, fill = first >> 3, first & 7
    waiting = np.int64(out[at]) >> (8 - fill) if fill else np.int64(0)
    upper = max(0, width - 32)
    lower = width - upper
    for i in range(len(values)):
        for part in range(2 if upper else 1):
            if upper and part == 0:
                waiting = (waiting << upper) | (values[i] >> lower)
                fill += upper
            else:
                waiting = (waiting << lower) | (values[i] & ((1 << lower) - 1))
                fill += lower
            while fill >= 8:
                fill -= 8
                out[at] = (waiting >> fill) & 255
                at += 1
            waiting &= (1 << fill) - 1
    if fill:
        out[at] = (waiting << (8 - fill)) & 255


def _put_fixed_reference(values: np.ndarray, width: int, first: int, out: np.ndarray) -> None:
    shifts = np.arange(width - 1, -1, -1, dtype=np.int64)
    bits = ((values[:, None] >> shifts) & 1).astype(np.uint8).reshape(-1)
    start = first & 7
    out[first >> 3 :] |= np.packbits(np.concatenate([np.zeros(start, np.uint8), bits]))


def _get_fixed_scalar(data, first, width, out):  # type: ignore[no-untyped-def]
    """The inverse: `out` (int64) from the bits of `data` from bit `first` on."""
    at, fill = first >> 3, 0
    waiting = np.int64(0)
    if first & 7 and len(out):
        fill = 8 - (first & 7)
        waiting = np.int64(data[at]) & ((1 << fill) - 1)
        at += 1
    upper = max(0, width - 32)
    lower = width - upper
    for i in range(len(out)):
        value = np.int64(0)
        for part in range(2 if upper else 1):
            wanted = upper if upper and part == 0 else lower
            while fill < wanted:
                waiting = (waiting << 8) | np.int64(data[at])
                at += 1
                fill += 8
            fill -= wanted
            value = (value << wanted) | (waiting >> fill)
            waiting &= (1 << fill) - 1
        out[i] = value


def _get_fixed_reference(data: np.ndarray, first: int, width: int, out: np.ndarray) -> None:
    bits = np.unpackbits(data[first >> 3 :])[first & 7 :][: len(out) * width]
    out[:] = 0
    for column in bits.reshape(len(out), width).T if width else ():
        out[:] = out << 1 | column


def _put_varied_scalar(values, widths, out):  # type: ignore[no-untyped-def]
    """Each integer with its own width <= 56, to the zero bytes `out`."""
    at, fill, waiting = 0, 0, np.int64(0)
    for i in range(len(values)):
        waiting = (waiting << widths[i]) | values[i]
        fill += widths[i]
        while fill >= 8:
            fill -= 8
            out[at] = (waiting >> fill) & 255
            at += 1
        waiting &= (1 << fill) - 1
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
        while fill < widths[i]:
            waiting = (waiting << 8) | np.int64(data[at])
            at += 1
            fill += 8
        fill -= widths[i]
        out[i] = waiting >> fill
        waiting &= (1 << fill) - 1


def _get_varied_reference(data: np.ndarray, widths: np.ndarray, out: np.ndarray) -> None:
    owner = np.repeat(np.arange(len(out)), widths)
    below = np.cumsum(widths)[owner] - 1 - np.arange(len(owner))
    out[:] = 0
    np.add.at(out, owner, np.unpackbits(data)[: len(owner)].astype(np.int64) << below)


def _put_unary_scalar(values, out):  # type: ignore[no-untyped-def]
    """Each integer as so many zeros and a one, to the zero bytes `out`."""
    at = 0
    for i in range(len(values)):
        at += values[i]
        out[at >> 3] |= np.uint8(128) >> np.uint8(at & 7)
        at += 1


def _put_unary_reference(values: np.ndarray, out: np.ndarray) -> None:
    ends = np.cumsum(values + 1)
    bits = np.zeros(8 * len(out), dtype=np.uint8)
    bits[ends - 1] = 1
    out[:] = np.packbits(bits)


def _get_unary_scalar(data, out):  # type: ignore[no-untyped-def]
    """The inverse: `out` (int64); returns how many bits it took, −1 where `data` ends before."""
    i, run = 0, 0
    n = len(out)
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
                    return 8 * at + place + 1
            else:
                run += 1
    return -1 if i < n else 0


def _get_unary_reference(data: np.ndarray, out: np.ndarray) -> int:
    window = len(out) // 4 + 8
    while True:
        ends = np.flatnonzero(np.unpackbits(data[:window]))
        if len(ends) >= len(out):
            break
        if window >= len(data):
            return -1
        window *= 2
    out[:] = np.diff(ends[: len(out)], prepend=-1) - 1
    return int(ends[len(out) - 1]) + 1 if len(out) else 0


put_fixed = Loop(_put_fixed_scalar, _put_fixed_reference)
get_fixed = Loop(_get_fixed_scalar, _get_fixed_reference)
put_unary = Loop(_put_unary_scalar, _put_unary_reference)
get_unary = Loop(_get_unary_scalar, _get_unary_reference)
put_varied = Loop(_put_varied_scalar, _put_varied_reference)
get_varied = Loop(_get_varied_scalar, _get_varied_reference)
