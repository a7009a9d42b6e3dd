"""Streams of small non-negative integers: counted, joined to fewer and larger ones, packed to a fixed width."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from telegrad.kernels.compilation import Loop
from telegrad.kernels.threads import in_chunks

__all__ = ["UNSIGNED", "counted", "fixed_width", "folded", "from_fixed_width", "joined", "parted", "unfolded"]

_PART = 65536
UNSIGNED: dict[Any, Any] = {np.dtype(np.int8): np.dtype(np.uint8), np.dtype(np.int16): np.dtype(np.uint16)}
"""The types of as many bits without a sign."""


def _count_scalar(values: Any, counts: Any) -> bool:
    size = counts.shape[1]
    # Several tables for long streams, so that equal neighbours do not wait for each other.
    last = len(counts) - 1
    for i in range(len(values)):
        value = values[i]
        if value >= size:
            return False
        counts[i & last, value] += 1
    return True


def _count_reference(values: np.ndarray, counts: np.ndarray) -> bool:
    if len(values) and int(values.max()) >= counts.shape[1]:
        return False
    counts[0] += np.bincount(values, minlength=counts.shape[1])
    return True


def counted(values: np.ndarray, size: int) -> np.ndarray | None:
    """How often each integer up to the largest occurs, int64, signed ones as `folded` makes them; None where the
    largest is not below `size`.
    """

    def work(_: int, start: int, stop: int) -> np.ndarray | None:
        table = np.zeros((4 if stop - start >= _PART else 1, size), dtype=np.int64)
        parts = (_unsigned(values[at : min(stop, at + _PART)]) for at in range(start, stop, _PART))
        return table.sum(0) if all(_count(part, table) for part in parts) else None

    tables = in_chunks(work, len(values))
    counts = tables[0] if len(tables) == 1 else np.zeros(size, dtype=np.int64)
    for table in tables:
        if table is None:
            return None
        if table is not counts:
            counts += table
    assert counts is not None
    return counts[: size - int((counts[::-1] != 0).argmax()) if len(values) else 0]


def _join_scalar(values: Any, base: int, group: int, out: Any) -> None:
    whole = len(values) // group
    for i in range(whole):
        total = np.int64(0)
        for j in range(i * group + group - 1, i * group - 1, -1):
            total = total * base + values[j]
        out[i] = total
    if whole < len(out):
        total = np.int64(0)
        for j in range(len(values) - 1, whole * group - 1, -1):
            total = total * base + values[j]
        out[whole] = total


def _join_reference(values: np.ndarray, base: int, group: int, out: np.ndarray) -> None:
    padded = np.zeros(len(out) * group, dtype=np.int64)
    padded[: len(values)] = values
    out[:] = padded.reshape(-1, group) @ base ** np.arange(group)


def joined(values: np.ndarray, base: int, group: int) -> np.ndarray:
    """`group` integers below `base` as one, Σ v_j base^j, uint8; zeros are appended where the last group is short.

    Signed integers as `folded` makes them.
    """
    out = np.empty(-(-len(values) // group), dtype=np.uint8)

    def work(_: int, start: int, stop: int) -> None:
        for at in range(start, stop, _PART):
            end = min(stop, at + _PART)
            _join(_unsigned(values[at * group : end * group]), base, group, out[at:end])

    in_chunks(work, len(out))
    return out


def _part_scalar(values: Any, digits: Any, out: Any) -> None:
    group = digits.shape[1]
    whole = len(out) // group
    for i in range(whole):
        value = values[i]
        for j in range(group):
            out[i * group + j] = digits[value, j]
    for k in range(whole * group, len(out)):
        out[k] = digits[values[whole], k - whole * group]


def _part_reference(values: np.ndarray, digits: np.ndarray, out: np.ndarray) -> None:
    out[:] = digits[values].reshape(-1)[: len(out)]


def parted(values: np.ndarray, base: int, group: int, n: int) -> np.ndarray:
    """The inverse of `joined`: n integers, uint8."""
    digits = (np.arange(256)[:, None] // base ** np.arange(group) % base).astype(np.uint8)
    if group in (2, 4, 8):
        room = np.empty(len(values) * group, dtype=np.uint8)
        whole, table = room.view(f"u{group}"), digits.view(f"u{group}").reshape(-1)
        in_chunks(lambda _, a, b: _taken_in_parts(table, values[a:b], whole[a:b]), len(values))
        return room[:n]
    out = np.empty(n, dtype=np.uint8)
    in_chunks(lambda _, start, stop: _part(values[start:stop], digits, out[start * group : stop * group]), len(values))
    return out


def _fold_scalar(values: Any, out: Any) -> None:
    for i in range(len(values)):
        value = np.int64(values[i])
        out[i] = (value << 1) ^ (value >> 63)


def _fold_reference(values: np.ndarray, out: np.ndarray) -> None:
    wide = values.astype(np.int64)
    out[:] = (wide << 1) ^ (wide >> 63)


def folded(values: np.ndarray) -> np.ndarray:
    """0, −1, 1, −2, … as 0, 1, 2, 3, …; from int8 and int16 to the unsigned type of that size, else int64."""
    out = np.empty(len(values), dtype=UNSIGNED.get(values.dtype, np.dtype(np.int64)))
    _fold(values, out)
    return out


def _unsigned(values: np.ndarray) -> np.ndarray:
    return folded(values) if values.dtype in UNSIGNED else values


def _unfold_scalar(values: Any, out: Any) -> None:
    for i in range(len(values)):
        value = np.int64(values[i])
        out[i] = (value >> 1) ^ -(value & 1)


def _unfold_reference(values: np.ndarray, out: np.ndarray) -> None:
    wide = values.astype(np.int64)
    out[:] = (wide >> 1) ^ -(wide & 1)


def unfolded(values: np.ndarray) -> np.ndarray:
    """The inverse of `folded`."""
    out = np.empty(len(values), dtype={1: np.int8, 2: np.int16}.get(values.itemsize, np.int64))
    in_chunks(lambda _, start, stop: _unfold(values[start:stop], out[start:stop]), len(values))
    return out


def fix_scalar(values: Any, width: int, out: Any) -> None:
    # `filled` bits, fewer than 8, wait for their byte; wide integers go in two parts.
    waiting: Any = 0
    filled, at = 0, 0
    upper = max(0, width - 32)
    for i in range(len(values)):
        value = np.int64(values[i])
        if upper:
            waiting, filled = (waiting << upper) | (value >> 32), filled + upper
            while filled >= 8:
                filled -= 8
                out[at] = (waiting >> filled) & 255
                at += 1
            waiting &= 255
        waiting, filled = (waiting << (width - upper)) | (value & 0xFFFFFFFF), filled + width - upper
        while filled >= 8:
            filled -= 8
            out[at] = (waiting >> filled) & 255
            at += 1
        waiting &= 255
    if filled:
        out[at] = (waiting << (8 - filled)) & 255


def _fix_reference(values: np.ndarray, width: int, out: np.ndarray) -> None:
    shifts = np.arange(width - 1, -1, -1, dtype=np.int64)
    out[:] = np.packbits(((values.astype(np.int64)[:, None] >> shifts) & 1).astype(np.uint8).reshape(-1))


def fixed_width(values: np.ndarray, width: int) -> np.ndarray:
    """Integers below 2^width, width <= 62, as `width` bits each, leading bit first, in bytes; padded with zeros."""
    out = np.empty((len(values) * width + 7) // 8, dtype=np.uint8)
    if width == 1:  # numpy has this loop
        in_chunks(
            lambda _, a, b: out.__setitem__(slice(a // 8, (b + 7) // 8), np.packbits(values[a:b])), len(values), 8
        )
    elif width:
        # Eight integers fill `width` bytes.
        in_chunks(
            lambda _, start, stop: _fix(values[start:stop], width, out[start // 8 * width : (stop * width + 7) // 8]),
            len(values),
            8,
        )
    return out


def _unfix_scalar(data: Any, width: int, out: Any) -> None:
    waiting: Any = 0
    filled, at = 0, 0
    for i in range(len(out)):
        value, wanted = 0, width
        while wanted > filled:
            value = value << filled | waiting
            wanted -= filled
            waiting, filled = np.int64(data[at]), 8
            at += 1
        filled -= wanted
        out[i] = value << wanted | waiting >> filled
        waiting &= (1 << filled) - 1


def _unfix_reference(data: np.ndarray, width: int, out: np.ndarray) -> None:
    out[:] = 0
    for column in np.unpackbits(data, count=len(out) * width).reshape(len(out), width).T:
        out[:] = out << 1 | column


def from_fixed_width(data: np.ndarray, n: int, width: int) -> np.ndarray:
    """The inverse of `fixed_width`: n integers, uint8 where they fit, else int64."""
    if width in (1, 2, 4):
        together = 8 // width
        out = np.empty(-(-n // together) * together, dtype=np.uint8)
        whole, table = out.view(f"u{together}"), _in_a_byte(width)
        in_chunks(lambda _, a, b: _taken_in_parts(table, data[a:b], whole[a:b]), len(whole))
        return out[:n]
    out = np.zeros(n, dtype=np.uint8 if width <= 8 else np.int64)
    if width:
        in_chunks(lambda _, start, stop: _unfix(data[start // 8 * width :], width, out[start:stop]), n, 8)
    return out


@cache
def _in_a_byte(width: int) -> np.ndarray:
    """The integers of `width` bits in each byte, side by side in one larger one."""
    shifts = np.arange(8 - width, -1, -width)
    parts = (np.arange(256)[:, None] >> shifts & ((1 << width) - 1)).astype(np.uint8)
    return parts.view(f"u{8 // width}").reshape(-1)


def _taken_in_parts(table: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
    for start in range(0, len(out), _PART):
        np.take(table, places[start : start + _PART], out=out[start : start + _PART], mode="wrap")


_count = Loop(_count_scalar, _count_reference)
_join = Loop(_join_scalar, _join_reference)
_part = Loop(_part_scalar, _part_reference)
_fold = Loop(_fold_scalar, _fold_reference)
_unfold = Loop(_unfold_scalar, _unfold_reference)
_fix = Loop(fix_scalar, _fix_reference)
_unfix = Loop(_unfix_scalar, _unfix_reference)
