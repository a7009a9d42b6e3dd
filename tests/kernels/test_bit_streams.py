"""Compiled bit packing against its numpy form, at every width and offset."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from telegrad.kernels import gaps as gap_kernels
from telegrad.kernels.bit_streams import get_fixed, get_unary, get_varied, put_fixed, put_unary, put_varied
from telegrad.kernels.gaps import bucketed, widths_of


@given(st.integers(1, 62), st.integers(0, 23), st.data())
def test_fixed_width_streams_are_the_same_in_both_forms(width, first, data):
    values = np.array(data.draw(st.lists(st.integers(0, 2**width - 1), min_size=1, max_size=40)), dtype=np.int64)
    streams = []
    for put in (put_fixed, put_fixed.reference):
        out = np.zeros((first + width * len(values) + 7) // 8, dtype=np.uint8)
        out[0] |= 128 if first else 0  # what is there already stays
        put(values, width, first, out)
        streams.append(out)
    assert np.array_equal(*streams)
    assert streams[0][0] >> 7 == 1 or not first
    for get in (get_fixed, get_fixed.reference):
        back = np.zeros(len(values), dtype=np.int64)
        get(streams[0], first, width, back)
        assert np.array_equal(back, values)


@given(st.lists(st.integers(0, 90), min_size=1, max_size=60), st.integers(0, 3))
def test_unary_streams_are_the_same_in_both_forms(values, padding):
    array = np.array(values, dtype=np.int64)
    nbits, streams = int((array + 1).sum()), []
    for put in (put_unary, put_unary.reference):
        out = np.zeros((nbits + 7) // 8, dtype=np.uint8)
        put(array, out)
        streams.append(out)
    assert np.array_equal(*streams)
    whole = np.concatenate([streams[0], np.full(padding, 255, dtype=np.uint8)])
    for get in (get_unary, get_unary.reference):
        back = np.zeros(len(array), dtype=np.int64)
        assert get(whole, back) == nbits
        assert np.array_equal(back, array)


@pytest.mark.parametrize("n", [2, 9])
def test_a_unary_stream_that_ends_too_early_is_noticed(n):
    for get in (get_unary, get_unary.reference):
        assert get(np.array([0b00010000, 0], dtype=np.uint8), np.zeros(n, dtype=np.int64)) == -1


@given(st.lists(st.tuples(st.integers(0, 56), st.integers(0, 2**56 - 1)), min_size=1, max_size=40))
def test_streams_of_varying_width_are_the_same_in_both_forms(pairs):
    widths = np.array([width for width, _ in pairs], dtype=np.int64)
    values = np.array([value & ((1 << width) - 1) for width, value in pairs], dtype=np.int64)
    streams = []
    for put in (put_varied, put_varied.reference):
        out = np.zeros((int(widths.sum()) + 7) // 8, dtype=np.uint8)
        put(values, widths, out)
        streams.append(out)
    assert np.array_equal(*streams)
    for get in (get_varied, get_varied.reference):
        back = np.zeros(len(values), dtype=np.int64)
        get(streams[0], widths, back)
        assert np.array_equal(back, values)


@given(st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=40))
def test_a_gap_lies_in_its_bucket(gaps):
    array = np.array([*gaps, 2**53 - 1, *range(70)], dtype=np.int64)
    buckets, widths = bucketed(array)
    assert np.array_equal(widths, widths_of(buckets))
    low = (buckets - 4 * widths) << widths
    assert ((low <= array) & (array < low + (1 << widths))).all()
    assert buckets[-70:].tolist()[:8] == list(range(8))
    again = np.empty_like(array), np.empty_like(array)
    gap_kernels._bucket.reference(array, *again)
    assert np.array_equal(again[0], buckets)
    assert np.array_equal(again[1], widths)
