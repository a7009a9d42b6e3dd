"""Files of messages."""

import os
import resource
import threading
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


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_has_the_permissions_of_any_new_file(codes, tmp_path, mask):
    before = os.umask(mask)
    try:
        tg.save(tmp_path / "step", codes)
        (tmp_path / "ordinary").touch()
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode for name in ("step", "ordinary")]
    assert modes[0] == modes[1]


def test_a_save_that_fails_leaves_nothing_behind_and_the_old_file_as_it_was(codes, tmp_path):
    tg.save(tmp_path / "step", {"w": codes["empty"]})
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="name a file in it"):
        tg.save(tmp_path / "folder", codes)
    with pytest.raises(FileNotFoundError):
        tg.save(tmp_path / "missing" / "step", codes)
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))  # files of at most 100 bytes, as on a disk that is full
    try:
        with pytest.raises(OSError):
            tg.save(tmp_path / "step", codes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "step"]
    assert list(tg.load(tmp_path / "step")) == ["w"]


def test_links_stay_links_and_pipes_stay_pipes(codes, tmp_path):
    (tmp_path / "latest").symlink_to(tmp_path / "step")
    written = tg.save(tmp_path / "latest", codes)
    assert (tmp_path / "latest").is_symlink()
    assert (tmp_path / "step").stat().st_size == written
    os.mkfifo(tmp_path / "pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    tg.save(tmp_path / "pipe", codes)
    reader.join()
    assert received == [(tmp_path / "step").read_bytes()]
    assert (tmp_path / "pipe").is_fifo()


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
