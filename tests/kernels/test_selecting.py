"""Selection by magnitude: every rank of every kind of vector against a stable sort, on any number of threads."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

import telegrad as tg
from telegrad.kernels.selection.by_rank import SMALL, MagnitudeHistogram, among_largest, largest_entries

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def vector(kind, n, dtype):
    normal = tg.Key(n).normal(n)
    made = {
        "normal": normal,
        "heavy": normal**5 * 1e-3,
        "constant": torch.full((n,), -0.7),
        "few values": (2 * normal).round(),
        "mostly zero": torch.where(normal > 1.3, normal, 0.0),
        "one bin": 1.0 + normal.abs() * 1e-3,
        "subnormal": normal * torch.finfo(dtype).smallest_normal * 0.01,
    }
    return made[kind].to(dtype)


KINDS = ["normal", "heavy", "constant", "few values", "mostly zero", "one bin", "subnormal"]


def by_sorting(v):
    """All indices by decreasing magnitude, equal ones in the order of indices."""
    return torch.sort(v.double().abs(), descending=True, stable=True).indices


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_are_those_of_a_stable_sort(kind, dtype):
    v = vector(kind, 3 * SMALL, dtype)
    order, histogram = by_sorting(v), MagnitudeHistogram(v)
    n = len(v)
    for start, stop in [(0, 1), (0, 700), (1, 2), (699, 1400), (n // 2, n // 2 + 999), (n - 5, n), (0, n), (17, 17)]:
        assert torch.equal(histogram.ranked(start, stop), order[start:stop].sort().values)
    for k in (1, 700, n - 1, n, n + 5):
        assert torch.equal(largest_entries(v, k), order[:k].sort().values)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "few values", "constant", "mostly zero"])
def test_some_of_the_largest_are_those_of_the_list_of_all(kind, dtype, threads):
    v = vector(kind, 140_000, dtype)
    order, n = by_sorting(v), len(v)
    for k in (3000, 30_001, n - 1, n):
        listed = order[:k].sort().values
        for which in (torch.arange(0), torch.arange(k - 1, k), torch.arange(0, k, 7), torch.arange(k)):
            for count in (1, 2):
                threads(count)
                assert torch.equal(among_largest(v, k, which), listed[which])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(st.lists(st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, 1.0078125, -3.0]), min_size=1, max_size=60), st.data())
def test_ranks_of_short_vectors_with_ties(dtype, entries, data):
    v = torch.tensor(entries, dtype=dtype)
    start = data.draw(st.integers(0, len(v)))
    stop = data.draw(st.integers(start, len(v)))
    expected = by_sorting(v)[start:stop].sort().values
    assert torch.equal(MagnitudeHistogram(v).ranked(start, stop), expected)
    assert torch.equal(largest_entries(v, max(1, stop)), by_sorting(v)[: max(1, stop)].sort().values)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_counts_and_sums_are_those_of_the_entries_between_the_edges(kind, dtype):
    v = vector(kind, 5000, dtype)
    histogram, magnitude = MagnitudeHistogram(v, with_sums=dtype != torch.float64), np.abs(v.double().numpy())
    bins = np.searchsorted(histogram.smallest, magnitude, side="right") - 1
    assert (magnitude <= histogram.largest[bins]).all()
    assert histogram.counts.sum() == 5000
    assert np.array_equal(histogram.counts, np.bincount(bins, minlength=len(histogram.counts)))
    first, last = int(bins.min()), int(np.median(bins))
    assert histogram.entries(first, last).tolist() == np.flatnonzero((bins >= first) & (bins <= last)).tolist()
    if dtype != torch.float64:
        full = histogram.counts > 0
        sums = np.bincount(bins, magnitude, minlength=len(histogram.counts))
        assert np.allclose(histogram.sums()[full], sums[full], rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("kind", "n"), [("normal", 150_001), ("few values", 150_001), ("mostly zero", 1_050_000)])
def test_threads_and_the_defining_forms_find_the_same(kind, n, dtype, disable_numba):
    v = vector(kind, n, dtype)
    windows = [(0, 1500), (40_000, 41_500), (n - 1000, n)]

    def found():
        histogram = MagnitudeHistogram(v, with_sums=dtype != torch.float64)
        sums = histogram.sums()[histogram.counts > 0] if dtype != torch.float64 else np.zeros(0)
        return histogram.counts.tolist(), sums.tolist(), [histogram.ranked(*window).tolist() for window in windows]

    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(found())
    finally:
        torch.set_num_threads(before)
    disable_numba()
    assert results[0] == results[1] == found()
