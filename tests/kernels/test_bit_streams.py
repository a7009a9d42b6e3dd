"""Compiled bit packing against its numpy form, at every width and offset."""

from contextlib import nullcontext

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from telegrad.kernels import compilation
from telegrad.kernels.coding import bit_streams
from telegrad.kernels.coding import bucketed_integers as gap_kernels
from telegrad.kernels.coding.bit_streams import (
    best_rice,
    get_rice,
    get_varied,
    packed_rice,
    packed_varied,
    rice_lengths,
    rice_nbits,
)
from telegrad.kernels.coding.bucketed_integers import bucketed, places, raw_bits, widths_of

FORMS = (nullcontext, compilation.reference_forms)


@given(st.lists(st.integers(0, 2**45), min_size=1, max_size=60), st.integers(0, 5), st.integers(0, 3))
def test_rice_codes_are_the_same_in_both_forms(values, above, padding):
    array = np.array(values, dtype=np.int64)
    b = min(31, max(0, int(array.max()).bit_length() - above))
    array &= (64 << b) - 1  # no endless runs
    nbits, streams = rice_nbits(array, b), [packed_rice(array, b), bit_streams._pack_rice.reference(array, b)]
    assert np.array_equal(*streams)
    assert len(streams[0]) == (nbits + 7) // 8
    whole = np.concatenate([streams[0], np.full(padding, 255, dtype=np.uint8)])
    for form in FORMS:
        with form():
            back = np.zeros(len(array), dtype=np.int64)
            assert get_rice(whole, b, back) == nbits
            assert np.array_equal(back, array)
            short = whole[: (nbits + 7) // 8 - 1]
            assert not 0 <= get_rice(short, b, back) <= 8 * len(short)


@given(st.lists(st.integers(0, 2**62 - 1), min_size=1, max_size=30))
def test_the_best_parameter_is_the_same_in_both_forms(values):
    array = np.array(values, dtype=np.int64) >> 2  # sums of them stay below 2^64
    assert bit_streams._best(array) == bit_streams._best.reference(array) == best_rice(array)


@given(st.lists(st.integers(0, 700), min_size=1, max_size=60))
def test_lengths_of_rice_codes_follow_from_counts(values):
    array = np.array(values)
    lengths, reference = rice_lengths(np.bincount(array), 6), np.empty(7, dtype=np.int64)
    assert lengths.tolist() == [rice_nbits(array, b) for b in range(7)]
    bit_streams._lengths.reference(np.bincount(array), reference)
    assert np.array_equal(reference, lengths)


@pytest.mark.parametrize("n", [2, 9])
def test_a_rice_code_that_ends_too_early_is_noticed(n):
    for form in FORMS:
        with form():
            assert get_rice(np.array([0b00010000, 0], dtype=np.uint8), 0, np.zeros(n, dtype=np.int64)) == -1


@given(st.lists(st.tuples(st.integers(0, 56), st.integers(0, 2**56 - 1)), min_size=1, max_size=40))
def test_streams_of_varying_width_are_the_same_in_both_forms(pairs):
    widths = np.array([width for width, _ in pairs], dtype=np.int64)
    whole = np.array([value for _, value in pairs], dtype=np.int64)
    values = whole & ((1 << widths) - 1)
    streams = [packed_varied(whole, widths), bit_streams._pack_varied.reference(whole, widths)]
    assert np.array_equal(*streams)
    assert len(streams[0]) == (int(widths.sum()) + 7) // 8
    for form in FORMS:
        with form():
            back = np.zeros(len(values), dtype=np.int64)
            get_varied(streams[0], widths, back)
            assert np.array_equal(back, values)


@given(st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=40))
def test_a_gap_lies_in_its_bucket(gaps):
    array = np.array([*gaps, 2**53 - 1, *range(70)], dtype=np.int64)
    buckets, widths = (found.astype(np.int64) for found in bucketed(array))
    assert np.array_equal(widths, widths_of(buckets))
    low = (buckets - 4 * widths) << widths
    assert ((low <= array) & (array < low + (1 << widths))).all()
    assert buckets[-70:].tolist()[:8] == list(range(8))
    again = np.empty(len(array), dtype=np.uint8), np.empty(len(array), dtype=np.uint8)
    gap_kernels._bucket.reference(array, *again)
    assert np.array_equal(again[0], buckets)
    assert np.array_equal(again[1], widths)


@given(st.lists(st.integers(0, 2**30), min_size=1, max_size=40), st.integers(0, 3))
def test_places_come_back_from_the_buckets_of_their_gaps(gaps, spare):
    array = np.array(gaps, dtype=np.int64)
    buckets, widths = bucketed(array)
    index, data = np.cumsum(array + 1) - 1, packed_varied(array, widths)
    d = int(index[-1]) + 1 + spare
    for form in FORMS:
        with form():
            assert raw_bits(buckets) == int(widths.sum())
            assert np.array_equal(places(buckets, data, d), index)
            assert places(buckets, data, int(index[-1])) is None


@pytest.mark.parametrize("n", [3, 600])
def test_gaps_beyond_all_integers_are_refused(n):
    """Buckets of the largest width: their sum exceeds 64 bits."""
    buckets = np.full(n, 199, dtype=np.uint8)
    data = np.full((raw_bits(buckets) + 7) // 8, 255, dtype=np.uint8)
    for form in FORMS:
        with form():
            assert places(buckets, data, 2**40) is None
