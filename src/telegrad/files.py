"""Files that appear whole or not at all, and what is in the place of those that cannot be read."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

__all__ = ["what_it_is", "write_atomic"]


def write_atomic(path: str | os.PathLike[str], content: str | bytes | bytearray) -> None:
    """Write a file so that it appears whole or not at all, whenever the process ends or the disk is full.

    The file has the permissions of any new file (the umask decides). A symbolic link stays, and its target is written.
    What is no ordinary file, such as a pipe or /dev/stdout, is written directly.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    temporary = target.with_name(f".telegrad-{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def what_it_is(path: Path, error: Exception) -> str:
    """Why a file cannot be read: what stands in place of the data, from its first bytes, or else the reader's error."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "it is empty (0 bytes)"
    if start.startswith(b"version https://git-lfs.github.com"):
        return "it is a git-lfs pointer in place of the data; `git lfs pull` fetches them"
    if b"/annex/objects/" in start:
        return "it is a git-annex pointer in place of the data; `git annex get` fetches them"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "it is a web page in place of the data"
    if not start.strip(b"\0"):
        return "it begins with zeros: it was not written to its end"
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"it is damaged, or no {path.suffix} file ({type(error).__name__}: {lines[0][:200]})"
