"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

__all__ = ["write_atomic"]


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
