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
from telegrad.wire.bits import pack_fixed, pack_varied, pack_varint
from telegrad.wire.integers import pack_pieces

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
