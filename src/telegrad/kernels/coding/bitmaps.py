"""Marks, one for each entry of a vector: for sets of entries that are so large that lists of places would be longer."""

from __future__ import annotations

from typing import Any

import numpy as np

from telegrad.kernels.compilation import Loop

__all__ = ["gaps_between", "largest_in_rows", "moved_together"]

_PIECE = 1 << 18


def gaps_between(marks: np.ndarray) -> np.ndarray:
    """How many entries without a mark lie before each one with it and after the one before; in the smallest of uint8,
    uint16 and int64 that holds them all. `marks`: bool, flat.
    """
    n = int(np.count_nonzero(marks))
    if n == len(marks):
        return np.zeros(n, dtype=np.uint8)
    for dtype in (np.uint8, np.uint16):
        # Every place is written before it is known whether it is one, the one after the last likewise.
        gaps: np.ndarray = np.empty(n + 1, dtype=dtype)
        if _gaps(marks, gaps) <= np.iinfo(dtype).max:
            return gaps[:n]
    gaps = np.empty(n + 1, dtype=np.int64)
    _gaps(marks, gaps)
    return gaps[:n]


def _gaps_scalar(marks: Any, gaps: Any) -> Any:
    at, gap, largest = np.int64(0), np.int64(0), np.int64(0)
    for i in range(len(marks)):
        mark = np.int64(marks[i])
        gaps[at] = gap
        largest = max(largest, gap * mark)
        gap = (gap + 1) * (1 - mark)
        at += mark
    return largest


def _gaps_reference(marks: np.ndarray, gaps: np.ndarray) -> int:
    found = np.diff(np.flatnonzero(marks), prepend=-1) - 1
    gaps[:-1] = found.astype(gaps.dtype)
    return int(found.max(initial=0))


def moved_together(values: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """values[marks], in the memory of `values`, which it overwrites."""
    if marks.all():
        return values
    at = 0
    for low in range(0, len(values), _PIECE):
        kept = values[low : low + _PIECE][marks[low : low + _PIECE]]
        values[at : at + len(kept)] = kept
        at += len(kept)
    return values[:at]


def largest_in_rows(rows: np.ndarray, k: int, marks: np.ndarray) -> None:
    """Mark the k largest magnitudes of each row, of equal ones the first, all of a row of up to k; zeros get no mark.

    `rows`: float64; `marks`: bool; both of shape (n, c). By the calling thread.
    """
    columns = rows.shape[1]
    if k >= columns:
        np.not_equal(rows, 0.0, out=marks)
    else:
        least = np.partition(np.abs(rows), columns - k, axis=1)[:, columns - k].copy()
        _mark_rows(rows, least, k, marks)


def _mark_rows_scalar(rows: Any, least: Any, k: int, marks: Any) -> None:
    for r in range(len(rows)):
        row, own, bound = rows[r], marks[r], least[r]
        above, reached = 0, 0
        for i in range(len(row)):
            above += abs(row[i]) > bound
            reached += abs(row[i]) >= bound
        for i in range(len(row)):
            own[i] = (abs(row[i]) >= bound) & (row[i] != 0.0)
        if reached > k:
            left = k - above
            for i in range(len(row)):
                if own[i] and abs(row[i]) == bound:
                    own[i] = left > 0
                    left -= 1


def _mark_rows_reference(rows: np.ndarray, least: np.ndarray, k: int, marks: np.ndarray) -> None:
    magnitude, bound = np.abs(rows), least[:, None]
    left = k - (magnitude > bound).sum(1, keepdims=True)
    equal = (magnitude == bound) & (bound > 0.0)
    marks[:] = (magnitude > bound) | (equal & (np.cumsum(equal, axis=1) <= left))


_gaps = Loop(_gaps_scalar, _gaps_reference)
_mark_rows = Loop(_mark_rows_scalar, _mark_rows_reference)
