"""Compiled code on disks that are full, damaged, or cannot be written: encoders work, and it is said once."""

import importlib
import resource
import stat
import tempfile
import warnings

import numba
import pytest

from telegrad.errors import TelegradWarning
from telegrad.kernels import caching
from telegrad.kernels.compilation import Loop


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for compiled code, and a process that has not warned yet."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(caching, "_said", [])
    return tmp_path


@pytest.fixture
def loop(place, monkeypatch):
    """Makes a loop as a new process would, from one source file."""
    (place / "source_of_a_loop.py").write_text("def scalar(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(place)

    def make():
        importlib.invalidate_caches()
        scalar = importlib.import_module("source_of_a_loop").scalar
        return Loop(scalar, scalar)

    yield make
    importlib.sys.modules.pop("source_of_a_loop", None)


def hits(loop):
    return sum(loop.compiled.stats.cache_hits.values())


def test_what_was_compiled_is_read_from_the_disk(loop, place):
    first, second = loop(), loop()
    assert (first(1), second(1)) == (2, 2)
    assert (hits(first), hits(second)) == (0, 1)
    assert {file.suffix for file in (place / "kept").rglob("*") if file.is_file()} == {".nbi", ".nbc"}


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"\0" * 99])
def test_damaged_files_are_written_anew(loop, place, suffix, damage):
    loop()(1)
    (file,) = (place / "kept").rglob(f"*{suffix}")
    file.write_bytes(damage(file.read_bytes()))
    again = loop()
    with pytest.warns(TelegradWarning, match="is damaged") as warned:
        found = (again(1), again(1.5))
    assert found == (2, 2.5)
    assert len(warned) == 1
    mended = loop()
    assert (mended(1), mended(1.5), hits(mended)) == (2, 2.5, 2)


def test_a_full_disk_is_no_obstacle(loop, place):
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))  # files of at most 100 bytes
    first, second = loop(), loop()
    try:
        with pytest.warns(TelegradWarning, match="cannot be kept in .*kept") as warned:
            found = (first(1), first(1.5), second(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    assert found == (2, 2.5, 2)
    assert len(warned) == 1
    assert not list((place / "kept").rglob("*.tmp*"))


@pytest.fixture
def nowhere(place, monkeypatch):
    """None of numba's own places can be made, since a file is in the way of each (root may write to any folder)."""
    for name in ("file", "__pycache__"):
        (place / name).touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(place / "file" / "kept"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "file"))
    monkeypatch.setenv("HOME", str(place / "file"))
    monkeypatch.setattr(importlib.sys, "dont_write_bytecode", True)
    monkeypatch.setattr(tempfile, "tempdir", str(place / "temporary"))
    (place / "temporary").mkdir()
    return place


def test_where_numba_has_no_place_a_private_folder_below_the_temporary_one_is_used(loop, nowhere):
    first, second = loop(), loop()
    assert (first(1), second(1), hits(second)) == (2, 2, 1)
    (folder,) = (nowhere / "temporary").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("fault", ["others may write", "a link", "a file", "missing"])
def test_code_is_never_read_from_where_others_can_write(loop, nowhere, fault):
    loop()(1)
    (folder,) = (nowhere / "temporary").iterdir()
    if fault == "others may write":
        folder.chmod(0o777)
    else:
        folder.rename(nowhere / "elsewhere")
        if fault == "a link":
            folder.symlink_to(nowhere / "elsewhere")
        elif fault == "a file":
            folder.touch()
        else:
            (nowhere / "temporary").rmdir()
    again, other = loop(), loop()
    with pytest.warns(TelegradWarning, match="no folder for compiled code") as warned:
        found = (again(1), other(1), hits(again))
    assert found == (2, 2, 0)
    assert len(warned) == 1


def test_a_good_disk_is_silent(loop):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loop()(2) == 3


@pytest.mark.parametrize(("rank", "said"), [("0", 1), ("1", 0)])
def test_the_first_compilation_is_announced_once_on_one_rank(loop, monkeypatch, caplog, rank, said):
    monkeypatch.setattr(caching, "compiled_here", [])
    monkeypatch.setenv("RANK", rank)
    loop()(1)
    loop()(1.5)
    assert sum("telegrad warmup" in record.message for record in caplog.records) == said
    assert [name.partition("-")[0] for name in caching.compiled_here] == ["source_of_a_loop.scalar"] * 2
    caplog.clear()
    loop()(1)  # from the disk
    assert not caplog.records
    assert len(caching.compiled_here) == 2
