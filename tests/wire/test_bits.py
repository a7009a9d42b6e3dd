"""Bit packing: round trips, lengths against formula (0.1), and a reader that never runs over."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from telegrad import WireError
from telegrad.kernels.coding.bit_streams import best_rice, rice_nbits
from telegrad.wire.bits import (
    Reader,
    pack_bits,
    pack_fixed,
    pack_rice,
    pack_varint,
    unpack_fixed,
    unpack_rice,
    varint_nbytes,
)


@given(st.integers(0, 40), st.data())
def test_fixed_width_integers_come_back(width, data):
    values = data.draw(st.lists(st.integers(0, 2**width - 1), max_size=40))
    packed = pack_fixed(np.array(values, dtype=np.int64), width)
    assert len(packed) == (len(values) * width + 7) // 8
    assert unpack_fixed(Reader(packed), len(values), width).tolist() == values


@given(st.lists(st.integers(0, 3000), max_size=60), st.integers(4, 31))
def test_rice_codes_come_back(values, b):
    array = np.array(values, dtype=np.int64)
    packed = pack_rice(array, b)
    assert len(packed) == (rice_nbits(array, b) + 7) // 8
    reader = Reader(packed + b"\xff")
    assert unpack_rice(reader, len(values), b).tolist() == values
    assert reader.left == 1


@given(st.lists(st.integers(0, 2**45), min_size=1, max_size=30), st.integers(0, 31))
def test_the_best_rice_parameter_is_the_best(values, b):
    array = np.array(values, dtype=np.int64)
    chosen, nbits, largest = best_rice(array)
    assert nbits == rice_nbits(array, chosen) <= rice_nbits(array, b)
    assert largest == max(values)


@given(st.integers(0, 2**63 - 1))
def test_varints_come_back(n):
    data = pack_varint(n)
    assert len(data) == varint_nbytes(n)
    assert Reader(data).varint() == n


@given(st.lists(st.booleans(), max_size=40))
def test_bits_come_back(bits):
    packed = pack_bits(np.array(bits, dtype=np.uint8))
    assert len(packed) == (len(bits) + 7) // 8
    assert Reader(packed).bits(len(bits)).tolist() == bits


def mean_rice_length(p):
    """(0.1): the best parameter for gaps where entries are there with probability p, and the mean bits of a gap."""
    b = max(0, 1 + math.floor(math.log2(math.log((math.sqrt(5) - 1) / 2) / math.log(1 - p))))
    return b, b + 1 / (1 - (1 - p) ** (2**b))


@pytest.mark.parametrize(("p", "b", "bits"), [(0.01, 6, 8.108), (0.1, 3, 4.756), (0.001, 9, 11.495)])
def test_gaps_of_random_sets_cost_what_the_formula_says(p, b, bits):
    """(0.1). N = 40,000 gaps: the sample's mean length has a standard error below .3 % of it; 1 % is allowed."""
    assert mean_rice_length(p) == (b, pytest.approx(bits, abs=5e-4))
    gaps = np.random.default_rng(0).geometric(p, 40_000) - 1
    assert rice_nbits(gaps, b) / len(gaps) == pytest.approx(bits, rel=0.01)
    chosen, nbits, _ = best_rice(gaps)
    assert nbits / len(gaps) == pytest.approx(bits, rel=0.01)
    assert abs(chosen - b) <= 1


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda r: r.take(4), "4 more bytes are announced, 3 are left"),
        (lambda r: r.bits(25), "4 more bytes are announced, 3 are left"),
        (lambda r: unpack_fixed(r, 5, 7), "5 more bytes are announced, 3 are left"),
        (lambda r: unpack_rice(r, 2**40, 3), "cannot lie in 3 bytes"),
        (lambda r: unpack_rice(r, 24, 0), "a run of coded integers has no end"),
        (lambda r: [r.byte() for _ in range(4)], "1 more bytes are announced, 0 are left"),
    ],
)
def test_the_reader_never_runs_over(read, said):
    with pytest.raises(WireError, match=said):
        read(Reader(b"\x00\x00\x01"))


def test_a_number_of_more_than_63_bits_is_refused():
    with pytest.raises(WireError, match="longer than 63 bits"):
        Reader(b"\xff" * 12).varint()
