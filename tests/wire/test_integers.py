"""Integer streams: round trips in every format, the shortest format taken, damage refused."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from telegrad import WireError
from telegrad.kernels.coding.bit_streams import rice_nbits
from telegrad.wire.bits import Reader, pack_varint
from telegrad.wire.distinct import distinct
from telegrad.wire.entropy_coded import entropy_bits
from telegrad.wire.integers import BUCKETS, DISTINCT, ENTROPY, Integers

SHORT = st.lists(st.one_of(st.integers(0, 3), st.integers(0, 300), st.integers(0, 2**40)), max_size=60)


@st.composite
def skewed_streams(draw):
    """Long enough and narrow enough for entropy coding; from one symbol to thousands, from flat to one-sided."""
    n = draw(st.sampled_from([1, 511, 512, 513, 2000, 65_535, 65_536, 65_539]))
    alphabet = draw(st.sampled_from([1, 2, 3, 17, 256, 4095, 4096, 5000]))
    skew = draw(st.sampled_from([0.0, 1.0, 4.0, 20.0]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return (rng.random(n) ** (1 + skew) * alphabet).astype(np.int64)


def reread(values):
    data = Integers(values).write()
    assert len(data) == Integers(values).nbytes
    reader = Reader(data + b"\xff")
    again = Integers.read(reader, len(values))
    assert reader.left == 1
    return data[0], again


@given(SHORT.map(lambda values: np.array(values, dtype=np.int64)))
def test_short_streams_come_back(values):
    _, again = reread(values)
    assert again.tolist() == values.tolist()


@settings(max_examples=40)
@given(skewed_streams())
def test_long_streams_come_back_at_no_more_than_their_entropy_and_a_table(values):
    form, again = reread(values)
    assert np.array_equal(again, values)
    counts = np.bincount(values)
    nbytes = Integers(values).nbytes - 1
    assert nbytes >= entropy_bits(counts) / 8 - 40  # the states of the lanes hold some words
    if form == ENTROPY:
        assert nbytes <= 1.02 * entropy_bits(counts) / 8 + 3 * len(counts) + 80


@given(SHORT.map(lambda values: np.array(values, dtype=np.int64)), st.integers(0, 31))
def test_no_other_format_is_shorter(values, b):
    width = int(values.max()).bit_length() if len(values) else 0
    assert Integers(values).nbytes <= 1 + (min(rice_nbits(values, b), width * len(values)) + 7) // 8


@pytest.mark.parametrize("alphabet", [2, 3, 40])
def test_a_skewed_stream_is_coded_near_its_entropy(alphabet):
    """20,000 symbols, geometric: within 2 % of n · H and 60 bytes for frequencies and states."""
    values = np.minimum(np.random.default_rng(1).geometric(0.7, 20_000) - 1, alphabet - 1)
    form, again = reread(values)
    assert form == ENTROPY
    assert np.array_equal(again, values)
    assert Integers(values).nbytes <= 1.02 * entropy_bits(np.bincount(values)) / 8 + 60


@pytest.mark.parametrize("mu", [9.0, 20.0])
def test_integers_over_many_octaves_go_in_buckets_near_their_entropy(mu, disable_numba):
    """⌊exp(mu + 2 N(0, 1))⌋ has about log2(2 e^mu √(2πe)) bits: within 1 % and 120 bytes."""
    values = np.floor(np.exp(mu + 2 * np.random.default_rng(1).standard_normal(20_000))).astype(np.int64)
    form, again = reread(values)
    assert form == BUCKETS
    assert np.array_equal(again, values)
    assert Integers(values).nbytes <= 1.01 * 20_000 * (mu / np.log(2) + np.log2(8 * np.pi * np.e) / 2) / 8 + 120
    data = Integers(values).write()
    disable_numba()
    assert Integers(values).write() == data
    assert np.array_equal(Integers.read(Reader(data), 20_000), values)


@pytest.mark.parametrize("values", [[7], [2**31] * 3, [2**31, 0, 2**40 - 1], [2**61]])
def test_wide_integers_come_back(values):
    """Gaps in vectors of more than 2^32 entries."""
    _, again = reread(np.array(values, dtype=np.int64))
    assert again.tolist() == values


@pytest.mark.parametrize("alphabet", [2, 3, 40])
def test_a_stream_of_several_pieces_is_the_same_for_all_threads_and_forms(alphabet, disable_numba, threads):
    """Long enough for groups of symbols where the alphabet is small, and for two pieces where it is not."""
    n = 280_001 if alphabet == 40 else 150_001
    values = np.minimum(np.random.default_rng(1).geometric(0.7, n) - 1, alphabet - 1).astype(np.uint8)
    threads(1)
    data = Integers(values).write()
    assert data[0] == ENTROPY
    assert len(data) <= 1.002 * entropy_bits(np.bincount(values)) / 8 + 150
    threads(2)
    assert Integers(values).write() == data
    assert np.array_equal(Integers.read(Reader(data), n), values)
    short = Integers(values[:70_001]).write()
    disable_numba()
    assert Integers(values[:70_001]).write() == short
    assert np.array_equal(Integers.read(Reader(short), 70_001), values[:70_001])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bytes([200]), "unknown integer format 200"),
        (bytes([40]), "unknown integer format 40"),
        (bytes([64 + 63]), "unknown integer format 127"),
        (bytes([BUCKETS, BUCKETS]), "buckets of buckets"),
        (bytes([BUCKETS, 64 + 8, 8, 9, 201, 8, 9]), "bucket 201; 200 is the last"),
        (bytes([ENTROPY, 16, 1, 2, 2]), "2 symbols with 16-bit frequencies is not ours"),
        (bytes([ENTROPY, 0, 1, 2, 2]), "2 symbols with 0-bit frequencies is not ours"),
        (bytes([ENTROPY, 10, 1, 2, 0x81, 0x20]), "4097 symbols"),
        (bytes([ENTROPY, 10, 2, 2, 5]), "5 symbols"),
        (bytes([ENTROPY, 10, 1, 0, 0]), "frequencies of an entropy-coded stream do not add up"),
        (bytes([ENTROPY, 1, 1, 2, 2, 0b00001000, 0b01000000, 1, 1]), "5 symbols are announced"),
        (bytes([ENTROPY, 1, 1, 2, 2, 0b00001000, 0b01000000]) + bytes(16) + bytes([0]), "does not end where it should"),
        (
            bytes([ENTROPY, 1, 1, 2, 2, 0b00001000, 0b01000000]) + bytes(16) + bytes([9, 0]),
            "18 more bytes are announced",
        ),
    ],
)
def test_impossible_streams_are_refused(data, said):
    with pytest.raises(WireError, match=said):
        Integers.read(Reader(data), 5)


def test_a_word_too_many_or_too_few_is_refused():
    values = (np.random.default_rng(0).random(2000) ** 6 * 20).astype(np.int64)
    data = Integers(values).write()
    assert data[0] == ENTROPY
    with pytest.raises(WireError, match="does not end where it should"):
        Integers.read(Reader(data), 1999)
    with pytest.raises(WireError, match="does not end where it should"):
        Integers.read(Reader(data), 2001)


@pytest.mark.parametrize("n", [40, 511, 512, 5000])
@pytest.mark.parametrize("table", [[3, 4], [300, 301, 7000, 7001], [2**40, 2**40 + 1], [0, 1, 2**61], [1000] * 2])
def test_few_distinct_integers_cost_which_one_each_is(n, table):
    rng = np.random.default_rng(n)
    values = np.array(table, dtype=np.int64)[rng.integers(len(table), size=n)]
    _, again = reread(values)
    assert np.array_equal(again, values)
    which = np.searchsorted(np.unique(values), values)
    assert Integers(values).nbytes <= Integers(which).nbytes + 30 + 10 * len(table)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32])
@pytest.mark.parametrize("high", [3, 250, 3000, 60_000])
@pytest.mark.parametrize("n", [1, 2, 700, 20_000])
def test_distinct_numbers_are_those_that_numpy_finds(n, high, dtype):
    """Whether they are counted or looked up; gaps that begin with a run of zeros look as if few were distinct."""
    high = min(high, 255) if dtype == np.uint8 else high
    value = np.append(np.zeros(200), np.random.default_rng(n).integers(high, size=n)).astype(dtype)
    table, symbol = np.unique(value, return_inverse=True)
    found = distinct(value)
    if len(table) > min(4096, len(value) // 2):
        assert found is None
    else:
        assert np.array_equal(found[0], table)
        assert np.array_equal(found[1], symbol)
        assert found[0].dtype == table.dtype


def distinct_message(table, which, n):
    data = bytes([DISTINCT]) + b"".join(map(pack_varint, (len(table), *table))) + which
    return Reader(data), n


@pytest.mark.parametrize(
    ("table", "which", "said"),
    [
        ([5, 2**62, 2**62], bytes([65, 0]), "longer than 62 bits"),
        ([5], bytes([65, 255]), "refers to integer 1 of 1"),
        ([5, 0], bytes([DISTINCT, 1, 0, 64]), "nests"),
        ([5, 0], bytes([BUCKETS, 64]), "nests"),
        ([5] * 9, bytes([64]), "9 distinct integers among 8"),
        ([], bytes([64]), "refers to integer 0 of 0"),
    ],
)
def test_tables_of_distinct_integers_that_are_none_are_refused(table, which, said):
    with pytest.raises(WireError, match=said):
        Integers.read(*distinct_message(table, which, 8))


def test_buckets_are_not_a_table_of_distinct_integers():
    with pytest.raises(WireError, match="buckets of buckets"):
        Integers.read(Reader(bytes([BUCKETS, DISTINCT, 1, 0, 64])), 8)
