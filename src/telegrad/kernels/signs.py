"""Entries as signs: each kept with a probability proportional to its magnitude, in one call for what was selected."""

from __future__ import annotations

import numpy as np

from telegrad.kernels.compiled import Loop
from telegrad.kernels.uniforms import _draw_reference, _draw_scalar, words
from telegrad.random import Key

__all__ = ["LEAST", "signs_in_proportion"]

LEAST = 2.0**-1022
"""The smallest float64 number with a leading one."""


def signs_in_proportion(v: np.ndarray, key: Key) -> tuple[float, np.ndarray, np.ndarray]:
    """(m, which, signs): m = max |v_j|; the j with u_j · m < |v_j|, u = `key.uniform(n)`, increasing, int64; the signs
    of these v_j, int8. `v`: float64, shape (n,); entries below `LEAST` are passed over, as if they were not there.
    """
    largest, which, signs = _signs(v, *words(key))
    return float(largest), which, signs


def _signs_scalar(v, offset, inner):  # type: ignore[no-untyped-def]
    largest, least = 0.0, np.inf
    for i in range(len(v)):
        magnitude = abs(v[i])
        largest, least = max(largest, magnitude), min(least, magnitude)
    present = np.empty(0, dtype=np.int64)
    if least < LEAST:
        present = np.flatnonzero(np.abs(v) >= LEAST)
        v = v[present]
    which = np.empty(len(v) + 1, dtype=np.int64)
    n = np.int64(_draw_scalar(v, largest, offset, inner, 0, which))
    signs = np.empty(n, dtype=np.int8)
    for i in range(n):
        signs[i] = 1 if v[which[i]] > 0.0 else -1
        if len(present):
            which[i] = present[which[i]]
    return largest, which[:n], signs


def _signs_reference(v: np.ndarray, offset: np.uint64, inner: np.uint64) -> tuple[float, np.ndarray, np.ndarray]:
    present = np.flatnonzero(np.abs(v) >= LEAST)
    v, which = v[present], np.empty(len(present) + 1, dtype=np.int64)
    largest = float(np.abs(v).max(initial=0.0))
    which = which[: _draw_reference(v, largest, offset, inner, 0, which)]
    return largest, present[which], np.sign(v[which]).astype(np.int8)


_signs = Loop(_signs_scalar, _signs_reference, uses=[_draw_scalar])
