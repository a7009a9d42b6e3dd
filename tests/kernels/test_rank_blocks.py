"""Block sums and thresholds from counts and from sorted magnitudes: both forms, and what they mean."""

import itertools

import numpy as np
import pytest
import torch

from telegrad.kernels.selection import rank_blocks, thresholds
from telegrad.kernels.selection.by_rank import MagnitudeHistogram
from telegrad.kernels.selection.rank_blocks import block_norms, counted_blocks, sorted_blocks
from telegrad.kernels.selection.thresholds import threshold_bin
from telegrad.random import Key

KINDS = {
    "gauss": lambda d: Key(1).normal(d),
    "heavy": lambda d: Key(1).normal(d) ** 5,
    "ties": lambda d: Key(1).normal(d).round(),
    "mostly zero": lambda d: Key(1).normal(d) * (Key(2).uniform(d) < 0.1),
    "constant": lambda d: torch.full((d,), -3.5, dtype=torch.float64),
}


def blocks_of(kind, d, s, dtype=torch.float32):
    v = KINDS[kind](d).to(dtype)
    return v, np.append(np.arange(0, d, s), d)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("s", [7, 100, 5000])
def test_compiled_sums_are_those_of_the_defining_forms(kind, power, s):
    v, edges = blocks_of(kind, 5000, s)
    histogram = MagnitudeHistogram(v)
    magnitude = np.sort(v.abs().double().numpy())[::-1].copy()
    for loop, arguments in (
        (rank_blocks._counted, (histogram.counts, histogram.smallest, histogram.largest, edges, power)),
        (rank_blocks._sorted, (magnitude, edges, power)),
    ):
        found = []
        for form in (loop, loop.reference):
            out = np.empty(len(edges) - 1), np.empty(len(edges) - 1)
            form(*arguments, *out)
            found.append(out)
        assert np.array_equal(found[0][0], found[1][0])
        assert np.array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("power", [1, 2])
def test_sums_are_of_the_blocks_entries(kind, power):
    """From sorted magnitudes to rounding; from 16-bit floats' bins, which hold one value each, as well."""
    v, edges = blocks_of(kind, 5000, 64, torch.bfloat16)
    histogram = MagnitudeHistogram(v)
    magnitude = np.sort(v.abs().double().numpy())[::-1].copy()
    tops, sums = sorted_blocks(magnitude, edges, power)
    for block, (start, stop) in enumerate(itertools.pairwise(edges)):
        entries = magnitude[start:stop]
        assert tops[block] == entries[0]
        assert sums[block] * tops[block] ** power == pytest.approx((entries**power).sum(), rel=1e-12)
    counted_tops, counted_sums = counted_blocks(histogram.counts, histogram.smallest, histogram.largest, edges, power)
    assert np.array_equal(counted_tops, tops)
    # Differences of sums: to rounding of the whole.
    assert counted_sums * tops**power == pytest.approx(sums * tops**power, abs=1e-12 * (magnitude**power).sum())


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_norms_of_blocks_are_at_least_the_reserve(kind, power):
    v, _ = blocks_of(kind, 5000, 1)
    histogram, edges = MagnitudeHistogram(v), np.arange(0, 5001, 50)
    of_bins = histogram.counts, histogram.smallest, histogram.largest, edges, power
    tops, sums = counted_blocks(*of_bins)
    plain = tops * np.sqrt(sums)
    for reserve in (0.0, 2.0**-20, 0.5):
        norms, reference = block_norms(*of_bins, reserve), np.empty(100)
        rank_blocks._norms.reference(*of_bins, reserve, reference)
        assert np.array_equal(norms, reference)
        assert norms == pytest.approx(np.maximum(plain, plain.mean() * reserve), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 50, 700.5, 4999, 5000])
def test_the_bin_of_a_threshold_is_the_first_from_above_that_reaches_k(kind, k):
    v, _ = blocks_of(kind, 5000, 1)
    histogram = MagnitudeHistogram(v, with_sums=True)
    arguments = histogram.counts, *histogram._linear(), k
    found = histogram.threshold_bin(k)
    assert found == threshold_bin(*arguments) == thresholds._threshold.reference(*arguments)
    magnitude = v.abs().double()

    def expected(t):
        return float((magnitude / t).clamp(max=1.0).sum()) if t else float((magnitude > 0).sum())

    at, above, rest, total = found
    if at < 0:
        assert expected(0.0) < k
        return
    assert above == int((magnitude > histogram.largest[at]).sum())
    assert rest == pytest.approx(float(magnitude[magnitude < histogram.smallest[at]].sum()), rel=1e-9)
    low, high = float(histogram.smallest[at]), float(histogram.largest[at])
    assert total == pytest.approx(float(magnitude[(magnitude >= low) & (magnitude <= high)].sum()), rel=1e-12)
    if low > 0.0:
        assert expected(low) >= k * (1 - 1e-12)
        higher = np.flatnonzero(histogram.counts[at + 1 :])
        if len(higher):
            assert expected(float(histogram.smallest[at + 1 + higher[0]])) < k * (1 + 1e-12)
