"""Few distinct numbers: which they are, and which one each entry is."""

from __future__ import annotations

import numpy as np

__all__ = ["distinct", "few_distinct"]

_SAMPLE = 1024
_MOST = 4096
_COUNTED = 4  # times as large as their number is, integers are rather counted than looked up one by one


def few_distinct(value: np.ndarray) -> bool:
    """Whether it is worth a closer look if few of the numbers are distinct: by the first 128."""
    return len(np.unique(value[:128])) <= min(64, len(value) // 2)


def distinct(value: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The distinct numbers, increasing, and which one each is; None where there are many."""
    if len(value) < 2 or not few_distinct(value):
        return None
    if value.dtype.kind in "iu" and value.min() >= 0 and int(value.max()) < _COUNTED * len(value):
        return _distinct_by_counting(value)
    table = np.unique(value[:: max(1, len(value) // _SAMPLE)])
    for _ in range(2):
        if len(table) > min(_MOST, len(value) // 2):
            return None
        symbol = np.minimum(np.searchsorted(table, value), len(table) - 1)
        missing = table[symbol] != value
        if not missing.any():
            return table, symbol
        table = np.unique(np.append(table, value[missing]))
    return None


def _distinct_by_counting(value: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The same for integers from 0 that are not large: a lookup of each in a sorted table takes ten times as long."""
    present = np.zeros(int(value.max()) + 1, dtype=bool)
    present[value] = True
    table = np.flatnonzero(present)
    if len(table) > min(_MOST, len(value) // 2):
        return None
    number = np.zeros(len(present), dtype=np.int64)
    number[table] = np.arange(len(table))
    return table.astype(value.dtype), number[value]
