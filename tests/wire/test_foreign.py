"""Foreign bytes: nothing is read out of bounds, and nothing is reserved that neither message nor receiver justify."""

import os
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import telegrad as tg
from telegrad.kernels.coding.rans import Encoder
from telegrad.kernels.quantising.dither_frequencies import LAST_BUCKET, counted, frequencies, path_frequencies
from telegrad.kernels.quantising.gaussian_cells import dead_zone_centroids, dead_zone_centroids_of
from telegrad.kernels.trellis.codes import BITS, STATES, most_positions, trellis_code
from telegrad.kernels.trellis.dithered_paths import DENSITIES
from telegrad.wire.bits import pack_fixed, pack_varied, pack_varint
from telegrad.wire.code import Code, Term
from telegrad.wire.entropy_coded import pack_pieces
from telegrad.wire.positions import All, IndexSet
from telegrad.wire.values import Cosine, DeadZoneCells, Floats, RotatedCells, cosine

ROOT = Path(__file__).parents[2]


def sealed(body):
    return body + zlib.crc32(body).to_bytes(4, "little")


def vector_of(n, term, count=1):
    """A message for n float32 entries, of `count` times the same term."""
    return sealed(b"\x10\x01" + pack_varint(n) + b"\0" + pack_varint(count) + term * count)


def coded(symbols, alphabet, group, single):
    """An entropy-coded stream of equally frequent symbols, as another encoder might group them."""
    frequency = np.full(alphabet, 4096 // alphabet)
    frequency[0] += 4096 - frequency.sum()
    lengths = np.frexp(frequency.astype(np.float64))[1].astype(np.int64)
    head = bytes([128, 12, group]) + pack_varint(single) + pack_varint(alphabet)
    head += pack_fixed(lengths, 5) + pack_varied(frequency, np.maximum(lengths - 1, 0))
    return pack_pieces(Encoder(frequency, 12).pieces(lambda a, b: symbols[a:b], len(symbols)), head)


def table_of(size, stream):
    return b"\x04" + pack_varint(size) + np.arange(size, dtype="<f4").tobytes() + stream


@pytest.mark.timeout(1200)  # where there is nothing compiled yet and the machine is busy
def test_several_thousand_nearly_right_messages_are_refused_or_read_alike_by_all_forms():
    """With every index of the compiled loops checked; 10^6 of them: `make fuzz`, docs/foreign-bytes.md."""
    environment = {
        **os.environ,
        "NUMBA_BOUNDSCHECK": "1",
        # Code with checks is kept apart from code without.
        "NUMBA_CACHE_DIR": str(ROOT / ".pytest_cache" / "bounds-checked"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--messages", "4000"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "with bounds checks" in ended.stdout
    assert " read," in ended.stdout


@pytest.mark.parametrize(("alphabet", "group", "single"), [(400, 2, 20), (300, 2, 300), (257, 8, 2), (4096, 3, 16)])
def test_groups_of_symbols_beyond_the_table_that_takes_them_apart_are_refused(alphabet, group, single):
    symbols = np.array([alphabet - 1, 0, 256] * 20)
    data = vector_of(60 * group, table_of(4096, coded(symbols, alphabet, group, single)))
    with pytest.raises(tg.WireError, match="is not ours"):
        tg.unpack(data)


def test_groups_within_the_table_are_read():
    symbols = np.array([255, 16, 1] * 20)
    code = tg.unpack(vector_of(120, table_of(16, coded(symbols, 256, 2, 16))))
    assert code.decode().tolist() == [15.0, 15.0, 0.0, 1.0, 1.0, 0.0] * 20


@pytest.mark.parametrize("claimed", [2**36, 33, 31, 0])
def test_a_message_for_another_number_of_entries_than_expected_is_refused_before_anything_is_reserved(claimed):
    stream = bytes([64])  # no bits an entry
    tracemalloc.start()
    with pytest.raises(tg.WireError, match=f"for {claimed} entries, where 32 are expected"):
        tg.unpack(vector_of(claimed, table_of(1, stream)), numel=32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_the_number_expected_is_that_of_all_dimensions():
    code = tg.compressor("identity").encode(torch.ones(4, 8))
    assert tg.unpack(tg.pack(code), numel=32).shape == (4, 8)


def test_equal_entries_without_bits_have_a_limit_where_their_number_is_not_known():
    assert torch.equal(tg.unpack(vector_of(1000, table_of(1, bytes([64])))).decode(), torch.zeros(1000))
    tracemalloc.start()
    with pytest.raises(tg.WireError, match="equal entries"):
        tg.unpack(vector_of(2**29, table_of(1, bytes([64]))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_many_terms_of_entries_that_no_bits_pay_for_are_refused():
    """Each takes 7 bytes, and would take 4096 more when it is read."""
    tracemalloc.start()
    with pytest.raises(tg.WireError, match="terms with more entries"):
        tg.unpack(vector_of(4096, table_of(1, bytes([64])), count=50_000), numel=4096)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_pieces_whose_states_are_missing_are_refused_before_room_is_made():
    frequency = bytes([128, 1, 1, 1, 1]) + pack_fixed(np.array([2]), 5) + pack_varied(np.array([2]), np.array([1]))
    for traced in (False, True):  # the first call loads what is compiled
        if traced:
            tracemalloc.start()
        with pytest.raises(tg.WireError, match="bytes are not enough"):
            tg.unpack(vector_of(2**36, table_of(1, frequency)), numel=2**36)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("shape", [(2**41, 0), (2**30, 0, 2**30), (2**62,)])
def test_dimensions_that_no_tensor_has_are_refused(shape):
    dimensions = b"".join(map(pack_varint, shape))
    with pytest.raises(tg.WireError, match="entries"):
        tg.unpack(sealed(bytes([0x10, len(shape)]) + dimensions + b"\0\0"))


@pytest.mark.parametrize("count", [2**20, 2**40, 2**62])
@pytest.mark.parametrize("field", ["messages", "name", "message"])
def test_files_with_huge_counts_are_refused(tmp_path, count, field):
    data = tg.pack(tg.compressor("identity").encode(torch.ones(3)))
    counts = {"messages": 1, "name": 1, "message": len(data), field: count}
    body = b"telegrad\x01" + pack_varint(counts["messages"]) + pack_varint(counts["name"]) + b"a"
    (tmp_path / "file").write_bytes(sealed(body + pack_varint(counts["message"]) + data))
    with pytest.raises(tg.WireError, match="truncated"):
        tg.load(tmp_path / "file")


def test_two_files_joined_are_refused(tmp_path):
    tg.save(tmp_path / "one", {"a": tg.compressor("identity").encode(torch.ones(3))})
    data = (tmp_path / "one").read_bytes()
    for both in (data + data, sealed(data + data)):
        (tmp_path / "two").write_bytes(both)
        with pytest.raises(tg.WireError, match=r"damaged|follow the last message"):
            tg.load(tmp_path / "two")


def test_each_truncation_of_a_file_is_refused_with_a_mended_checksum_too(tmp_path):
    names = ("a", "b")
    tg.save(tmp_path / "one", {name: tg.compressor("topk(k=3)").encode(torch.arange(9.0)) for name in names})
    body = (tmp_path / "one").read_bytes()[:-4]
    for length in range(len(body)):
        (tmp_path / "cut").write_bytes(sealed(body[:length]))
        with pytest.raises(tg.WireError):
            tg.load(tmp_path / "cut")


def in_basis(n, chunks):
    """A message of one coefficient in each of these bases."""
    places = IndexSet(n, torch.tensor([3]))
    return Code((n,), torch.float32, tuple(Term(All(n), Cosine(places, Floats(torch.ones(1)), c)) for c in chunks))


def test_a_message_in_many_bases_is_refused_before_their_tables_are_made():
    assert len(tg.unpack(tg.pack(in_basis(40, [4, 8, 16, 32] * 3))).terms) == 12
    # What is longer than the vector makes no table of its own.
    assert len(tg.unpack(tg.pack(in_basis(40, range(40, 80)))).terms) == 40
    made = cosine._made
    cosine._made = lambda n: pytest.fail("a table was made")
    try:
        with pytest.raises(tg.WireError, match="up to 4 are allowed"):
            tg.unpack(tg.pack(in_basis(4096, range(4092, 4097))), 4096).decode()
    finally:
        cosine._made = made


def test_cosine_tables_that_are_kept_are_bounded_in_bytes():
    for n in (4096, 4095, 4094, 64):
        tg.compressor(f"dct(chunk={n}, k=1)").encode(torch.ones(4096))
    assert list(cosine._kept)[-1] == 64
    assert sum(one.nbytes for one in cosine._kept.values()) <= cosine._KEPT_NBYTES == 2 * 8 * 4096**2


def test_few_cells_far_out_cost_no_table_of_all_between():
    cells = DeadZoneCells(torch.tensor([2**20, -(2**19), 0, 1]), 1.0, 2.0**-15)
    values = RotatedCells(IndexSet(32, torch.tensor([3, 5, 7, 9])), cells, 7, torch.ones(1, dtype=torch.float64))
    data = tg.pack(Code((32,), torch.float32, (Term(All(32), values),)))
    tracemalloc.start()
    found = tg.unpack(data, 32).decode()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert float(found.norm()) == pytest.approx(float(cells.numbers().norm()), rel=1e-5)


@pytest.mark.parametrize("step", [2.0**-16, 0.013, 0.7, 5.0])
def test_cells_one_by_one_stand_for_what_the_table_of_all_says(step):
    table = dead_zone_centroids(0.6 * step, step, 1 << 17).numpy()
    symbols = np.unique(np.geomspace(1, 1 << 17, 3000).astype(np.int64))
    assert np.array_equal(dead_zone_centroids_of(0.6 * step, step, symbols), table[symbols])


@pytest.mark.parametrize("states", STATES)
def test_slots_of_every_trellis_code_lead_to_rows_of_its_table(states):
    """A message says at which position its code lies; the decoder's loop checks none of these."""
    for position in [*range(0, most_positions(states), 97), most_positions(states)]:
        code = trellis_code(states, position)
        assert (code.frequency >= 0).all()
        assert (code.frequency.sum(1) == 1 << BITS).all()
        assert 2 * code.columns <= 256
        rows, table = code._slots
        assert rows.shape == (2 << BITS,)
        assert int(rows.max()) < len(table) == len(code.point) == code.moves.shape[1]
        assert int(code.moves.max()) < states


def test_frequencies_of_every_law_that_is_read_add_up():
    """A message says the law; a slot is looked up in its frequencies without a check."""
    rng = np.random.default_rng(0)
    for ratio in 2.0 ** np.concatenate([rng.uniform(-140, 20, 40), rng.uniform(-2, 20, 40), [20.0]]):
        counts = counted(rng.integers(0, LAST_BUCKET, rng.integers(1, 121)) * (rng.random() < 0.5) + rng.integers(0, 2))
        counts[rng.integers(len(counts))] += 1
        for bits in (12, 15):
            for frequency in (
                frequencies(float(np.float32(ratio)), counts, bits),
                *(path_frequencies(float(np.float32(ratio)), counts, bits, density) for density in DENSITIES.values()),
            ):
                assert (frequency >= 0).all()
                assert (frequency.sum(1) == 1 << bits).all()
