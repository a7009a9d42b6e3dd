"""Files of messages."""

import zlib

import pytest
import torch

import telegrad as tg
from telegrad.errors import WireError


@pytest.fixture
def codes():
    key = tg.Key(1)
    x = key.normal(400).view(20, 20).float()
    specs = {"head.weight": "topk(k=0.1)", "päivä": "qsgd", "empty": "identity"}
    return {
        name: tg.compressor(spec).encode(x if name != "empty" else x[:0], key.fold(name=name))
        for name, spec in specs.items()
    }


def test_round_trip_keeps_names_order_and_tensors(codes, tmp_path):
    path = tmp_path / "step.telegrad"
    assert tg.save(path, codes) == path.stat().st_size
    found = tg.load(path)
    assert list(found) == list(codes)
    for name, code in codes.items():
        assert tg.pack(found[name]) == tg.pack(code)
        assert torch.equal(found[name].decode(), code.decode())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_file_costs_its_messages_and_little_more(codes, tmp_path):
    messages = sum(code.nbits // 8 for code in codes.values())
    names = sum(len(name.encode()) for name in codes)
    assert tg.save(tmp_path / "x", codes) <= messages + names + 9 + 1 + 4 + 4 * len(codes)


def test_an_empty_step_is_a_file(tmp_path):
    tg.save(tmp_path / "none", {})
    assert tg.load(tmp_path / "none") == {}


def test_every_truncation_and_every_flipped_byte_is_refused(codes, tmp_path):
    path = tmp_path / "step"
    tg.save(path, {"päivä": codes["päivä"]})
    data = path.read_bytes()
    for at in range(len(data)):
        for bad in (data[:at], data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]):
            path.write_bytes(bad)
            with pytest.raises(WireError):
                tg.load(path)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x01\x02\xff\xfe\x00", "not text"),
        (b"\x02\x01a\x0d@@\x01a\x0d@@", "two messages"),
        (b"\x00!", "follow the last"),
    ],
)
def test_well_summed_nonsense_names_its_fault(body, reason, tmp_path):
    message = tg.pack(tg.Code((0,), torch.float32))
    body = b"telegrad\x01" + body.replace(b"\x0d@@", bytes([len(message)]) + message)
    (tmp_path / "x").write_bytes(body + zlib.crc32(body).to_bytes(4, "little"))
    with pytest.raises(WireError, match=reason):
        tg.load(tmp_path / "x")
