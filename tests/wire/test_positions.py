"""Where entries lie: round trips, the shorter of gaps and bitmap, and how near index sets come to their entropy."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

import telegrad as tg
from telegrad.kernels.coding.bit_streams import best_rice
from telegrad.wire.bits import Reader, varint_nbytes
from telegrad.wire.integers import BITMAP, BUCKETS, Integers
from telegrad.wire.positions import POSITIONS, All, IndexSet, Nested, Ranked, Share, Subset, marked


def reread(positions):
    data = positions.write()
    assert len(data) == positions.nbytes
    reader = Reader(data)
    again = POSITIONS[positions.tag].read(reader, positions.d)
    assert reader.left == 0
    return again


@st.composite
def index_sets(draw):
    d = draw(st.integers(1, 400))
    places = draw(st.sets(st.integers(0, d - 1), max_size=d))
    return IndexSet(d, torch.tensor(sorted(places), dtype=torch.int64))


@given(index_sets())
def test_index_sets_come_back(positions):
    again = reread(positions)
    assert again.n == positions.n
    assert torch.equal(again.indices(), positions.index)


@pytest.mark.parametrize("d", [100, 4096])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_a_set_is_sent_as_gaps_or_as_a_bitmap_whichever_is_shorter(share, d):
    positions = IndexSet(d, tg.Key(1).subset(d, round(share * d)))
    gaps = positions.index.numpy() - [-1, *positions.index[:-1].tolist()][: positions.n] - 1
    marks = torch.zeros(d, dtype=torch.int64).index_fill(0, positions.index, 1).numpy()
    count = varint_nbytes(positions.n)
    as_gaps, as_bitmap = count + Integers(gaps).nbytes, count + 1 + Integers(marks).nbytes
    assert positions.nbytes == min(as_gaps, as_bitmap) <= count + 2 + (d + 7) // 8
    assert (positions.write()[count] == BITMAP) == (as_bitmap < as_gaps)
    assert torch.equal(reread(positions).indices(), positions.index)


@pytest.mark.parametrize("d", [1, 100, 140_000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.9, 1.0])
def test_marked_places_are_sent_as_listed_ones_are(share, d):
    positions = IndexSet(d, tg.Key(1).subset(d, round(share * d)))
    marks = np.zeros(d, dtype=bool)
    marks[positions.index.numpy()] = True
    found = marked(marks)
    assert found.write() == positions.write()
    assert (found.n, found.d, found.nbytes) == (positions.n, d, positions.nbytes)
    assert torch.equal(found.indices(), positions.index)
    assert torch.equal(found.narrow_indices().long(), positions.index)
    which = torch.arange(0, found.n, 3)
    assert found.keep(which).write() == positions.keep(which).write()


@pytest.mark.parametrize(("d", "k"), [(100_000, 1000), (100_000, 100), (20_000, 4000), (1_000_000, 1000)])
def test_random_sets_cost_within_two_percent_of_their_entropy(d, k):
    """0.3: log2 C(d, k) bits are the least for a uniformly random k-subset; a count and a format byte come on top."""
    entropy = (math.lgamma(d + 1) - math.lgamma(k + 1) - math.lgamma(d - k + 1)) / math.log(2)
    spent = 8 * IndexSet(d, tg.Key(2).subset(d, k)).nbytes
    assert entropy < spent <= 1.02 * entropy + 8 * (varint_nbytes(k) + 2)


@pytest.mark.parametrize("d", [2**31 + 7, 2**33, 2**40])
def test_places_in_vectors_of_more_than_32_bits_come_back(d):
    for places in ([d - 1], [0, 5, d - 1], [d // 2, d // 2 + 1]):
        assert reread(IndexSet(d, torch.tensor(places))).indices().tolist() == places


@pytest.mark.parametrize("beyond", [0, 1])
def test_bucketed_gaps_end_at_the_last_place_that_32_bits_hold_or_behind_it(beyond, disable_numba):
    """2^31 − 1 or 2^31, the last place of its vector; a vector that is one entry shorter has no such place."""
    d = 2**31 + beyond
    index = torch.cat([tg.Key(5).subset(2**20, 2000), torch.tensor([d - 1])])
    data = IndexSet(d, index).write()
    assert data[varint_nbytes(len(index))] == BUCKETS
    for _ in ("compiled", "reference"):
        again = IndexSet.read(Reader(data), d)
        assert torch.equal(again.indices(), index)
        assert again.narrow_indices().dtype == (torch.int64 if beyond else torch.int32)
        assert torch.equal(again.narrow_indices().long(), index)
        with pytest.raises(tg.WireError, match="outside the vector"):
            IndexSet.read(Reader(data), d - 1)
        disable_numba()


@pytest.mark.parametrize(
    "positions",
    [
        All(900),
        IndexSet(200_000, torch.arange(0)),
        IndexSet(900, torch.tensor([0, 7, 899])),
        IndexSet(200_000, torch.tensor([0, 7, 199_999])),
        IndexSet(200_000, torch.arange(100, 200_000, 100)),
        IndexSet(200_000, tg.Key(0).subset(200_000, 2000)),
        IndexSet(200_000, tg.Key(0).subset(200_000, 90_000)),
        Subset(900, 40, 3),
        Subset(200_000, 3000, 3),
        Nested(Subset(200_000, 3000, 3), IndexSet(3000, torch.tensor([0, 2999]))),
        Share(900, 7, 2, 3),
        Ranked(900, 5, 60),
    ],
    ids=str,
)
def test_what_adding_takes_are_the_indices(positions):
    for own in (positions, reread(positions)):
        narrow, index = own.narrow_indices(), own.indices()
        if isinstance(positions, All):
            assert narrow is index is None
        else:
            assert index.dtype == torch.int64
            assert torch.equal(narrow.long(), index)
            assert narrow.dtype == torch.int64 or isinstance(own, IndexSet | Subset)
            assert torch.equal(index, positions.indices())


@given(st.integers(1, 300), st.integers(0, 2**64 - 1), st.data())
def test_subsets_come_back_from_their_seed(d, seed, data):
    size = data.draw(st.integers(0, d))
    positions = Subset(d, size, seed)
    again = reread(positions)
    assert torch.equal(again.indices(), positions.indices())
    assert len(set(again.indices().tolist())) == again.n == size

    which = torch.tensor(
        sorted(data.draw(st.sets(st.integers(0, size - 1)) if size else st.just(set()))), dtype=torch.int64
    )
    nested = positions.keep(which)
    assert isinstance(nested, Nested)
    assert torch.equal(reread(nested).indices(), positions.indices()[which])
    assert torch.equal(nested.keep(which[:0]).indices(), which[:0])


def test_keeping_some_of_all_places_lists_them():
    kept = All(9).keep(torch.tensor([2, 5, 8]))
    assert kept.indices().tolist() == [2, 5, 8]
    assert kept.keep(torch.tensor([0, 2])).indices().tolist() == [2, 8]
    assert All(9).write() == b""


@pytest.mark.parametrize(
    ("tag", "data", "said"),
    [
        (1, bytes([9, 64]), "lists 9 indices for a vector of 8"),
        (1, bytes([2, BITMAP, 65, 0b11100000]), "announces 2 indices and marks 3"),
        (1, bytes([1, 64 + 8, 8]), "outside the vector of 8"),
        (1, bytes([2, 64 + 8, 7, 0]), "outside the vector of 8"),
        (2, bytes([9]) + bytes(8), "a subset of 9 among 8"),
        (2, bytes([3]) + bytes(7), "8 more bytes are announced, 7 are left"),
        (3, bytes([5]) + bytes(8) + bytes([6, 64]), "lists 6 indices for a vector of 5"),
        (7, b"", "unknown kind of positions 7"),
    ],
)
def test_impossible_places_are_refused(tag, data, said):
    with pytest.raises(tg.WireError, match=said):
        POSITIONS[tag].read(Reader(data), 8)


@pytest.mark.parametrize("d", [100_000, 1_000_000])
@pytest.mark.parametrize("share", [0.01, 0.03, 0.1])
def test_clustered_places_cost_less_than_random_ones(d, share):
    """Where four fifths of the places lie in a tenth of the vector, a code of gaps' buckets knows it, Rice does not."""
    n = round(share * d)
    dense = tg.Key(3).subset(d // 10, round(0.8 * n))
    sparse = d // 10 + tg.Key(4).subset(d - d // 10, n - round(0.8 * n))
    positions = IndexSet(d, torch.cat([dense, sparse]))
    assert torch.equal(reread(positions).indices(), positions.index)
    assert positions.nbytes < 0.97 * (best_rice(np.diff(positions.index.numpy(), prepend=-1) - 1)[1] / 8)
    assert positions.write()[varint_nbytes(n)] == BUCKETS


def test_regular_places_cost_next_to_nothing():
    positions = IndexSet(1_000_000, torch.arange(0, 1_000_000, 100))
    assert torch.equal(reread(positions).indices(), positions.index)
    assert positions.nbytes < 100
