"""Marks: gaps between them, what is moved together, the largest of each row; in every form."""

import numpy as np
import pytest

from telegrad.kernels.coding.bitmaps import gaps_between, largest_in_rows, moved_together

RANDOM = np.random.default_rng(8)


@pytest.mark.parametrize(
    ("marks", "dtype"),
    [
        (RANDOM.random(300_001) < 0.5, np.uint8),
        (np.ones(50, dtype=bool), np.uint8),
        (np.zeros(700, dtype=bool), np.uint8),
        (np.arange(1000) % 256 == 255, np.uint8),
        (np.arange(1000) % 257 == 256, np.uint16),
        (np.arange(140_000) == 65_536, np.int64),
    ],
    ids=["random", "all", "none", "gaps of 255", "gaps of 256", "a gap of 65536"],
)
def test_gaps_lead_back_to_the_marks(marks, dtype, disable_numba):
    gaps = gaps_between(marks)
    assert gaps.dtype == dtype
    assert (np.cumsum(gaps.astype(np.int64) + 1) - 1).tolist() == np.flatnonzero(marks).tolist()
    disable_numba()
    assert gaps_between(marks).dtype == dtype
    assert gaps_between(marks).tolist() == gaps.tolist()


def test_what_is_marked_moves_to_the_start():
    values, marks = RANDOM.integers(0, 9, 600_000), RANDOM.random(600_000) < 0.4
    wanted = values[marks].tolist()
    assert moved_together(values, marks).tolist() == wanted
    assert values[: len(wanted)].tolist() == wanted


@pytest.mark.parametrize(("columns", "k"), [(1, 1), (5, 2), (64, 32), (64, 64), (4096, 7)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_largest_of_each_row_are_those_of_a_stable_sort(columns, k, ties, disable_numba):
    """With ties, among magnitudes 0 … 3: the first of equal ones, and no zeros."""
    rows = RANDOM.standard_normal((100_000 // columns, columns))
    rows = np.round(rows) if ties else rows
    wanted = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(wanted, np.argsort(-np.abs(rows), axis=1, kind="stable")[:, :k], True, axis=1)
    wanted &= rows != 0
    for change in (lambda: None, disable_numba):
        change()
        marks = np.empty(rows.shape, dtype=bool)
        largest_in_rows(rows, k, marks)
        assert np.array_equal(marks, wanted)
