"""The histogram that predictions are made from: the compiled pass against the defining form and exact sums."""

import math

import numpy as np
import pytest
import torch

import telegrad as tg
from telegrad.kernels.histograms.by_ratio import entries_from, magnitude_sums, smallest_in

VECTORS = {
    "gauss": tg.Key(1).normal(70_000).float(),
    "heavy": tg.Key(2).normal(5_000).pow(9),
    "short floats": tg.Key(3).normal(5_000).to(torch.float16),
    "one": torch.tensor([0.0, -3.0]),
    "far apart": torch.tensor([1e-300, 1.0, -2.0, 2.0**-126], dtype=torch.float64),
}


@pytest.mark.parametrize("name", VECTORS)
def test_bins_hold_what_lies_between_their_ends(name, disable_numba, threads):
    v = VECTORS[name]
    relative = (v.double().abs() / float(v.double().abs().max())).float().double().numpy()
    found = [magnitude_sums(v)]
    threads(2)
    found.append(magnitude_sums(v))
    disable_numba()
    found.append(magnitude_sums(v))
    for one in found:
        assert (one.d, one.largest) == (len(v), float(v.double().abs().max()))
        assert int(one.count.sum()) == len(v)
        used = np.flatnonzero(one.count)
        for number in used[:: max(1, len(used) // 20)]:
            low, high = smallest_in(np.array([number, number + 1]))
            inside = v.double().abs()[torch.from_numpy((relative >= low) & (relative < high))].tolist()
            assert int(one.count[number]) == len(inside)
            assert one.total[number] == pytest.approx(math.fsum(inside), rel=1e-12)
            assert one.square[number] == pytest.approx(math.fsum(x * x for x in inside), rel=1e-12)
    assert np.array_equal(found[0].total, found[1].total)
    assert np.array_equal(found[0].square, found[1].square)


def test_sums_do_not_depend_on_threads_where_there_are_many_blocks(threads):
    v = tg.Key(8).normal(2_500_000).float()
    found = []
    for count in (1, 2):
        threads(count)
        found.append(magnitude_sums(v))
    assert np.array_equal(found[0].square, found[1].square)
    assert found[0].square.sum() == pytest.approx(float(v.double().square().sum()), rel=1e-12)


@pytest.mark.parametrize("name", VECTORS)
def test_entries_from_a_bin_on_are_those_that_it_counts(name, disable_numba):
    v = VECTORS[name]
    histogram = magnitude_sums(v)
    used = np.flatnonzero(histogram.count)[1:]
    for compiled in (True, False):
        if not compiled:
            disable_numba()
        for number in used[:: max(1, len(used) // 5)]:
            index = entries_from(v, float(smallest_in(np.array([number]))[0]))
            assert len(index) == int(histogram.count[number:].sum())
            assert float(v[index].double().square().sum()) == pytest.approx(histogram.square[number:].sum(), rel=1e-9)
