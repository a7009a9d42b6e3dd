"""Few distinct numbers: which they are, and which one each entry is."""

from __future__ import annotations

import numpy as np

__all__ = ["distinct", "few_distinct"]

_SAMPLE = 1024
_MOST = 4096


def few_distinct(value: np.ndarray) -> bool:
    """Whether it is worth a closer look if few of the numbers are distinct: by the first 128."""
    return len(np.unique(value[:128])) <= min(64, len(value) // 2)


def distinct(value: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The distinct numbers, increasing, and which one each is; None where there are many."""
    if len(value) < 2 or not few_distinct(value):
        return None
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
