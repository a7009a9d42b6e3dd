"""save and load: the messages of a whole step in one file."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from telegrad.errors import InputError, WireError
from telegrad.files import write_atomic
from telegrad.wire.bits import Reader, pack_varint
from telegrad.wire.code import CHECKSUM_NBYTES, Code
from telegrad.wire.message import pack, unpack

__all__ = ["load", "save"]

_MAGIC = b"telegrad\x01"


def save(path: str | os.PathLike[str], codes: Mapping[str, Code]) -> int:
    """Write named codes to one file, for example a step's messages by parameter name.

    Layout: `telegrad` and a version byte; the number of messages; for each its name, its length and the message as
    `pack` makes it; CRC-32 of all before it. The file appears whole or not at all.

    Args:
        path: where to write; what is there is replaced.
        codes: codes by name.

    Returns:
        The file's length in bytes.

    Raises:
        InputError: `codes` are no codes by name.
        OSError: the file cannot be written.

    Example:
        >>> code = tg.compressor("sign").encode(torch.ones(1000))
        >>> tg.save("step.telegrad", {"layer.weight": code}) - len(tg.pack(code))
        29
    """
    if not isinstance(codes, Mapping):
        raise InputError(
            f'save takes codes by name, not a {type(codes).__name__}: write save(path, {{"weight": code}})'
        )
    out = bytearray(_MAGIC + pack_varint(len(codes)))
    for name, code in codes.items():
        if not isinstance(name, str) or not isinstance(code, Code):
            raise InputError(
                f"save: {name!r} stands for a {type(code).__name__}; names are texts and stand for codes, as "
                "`compressor.encode` makes them"
            )
        for part in (name.encode(), pack(code)):
            out += pack_varint(len(part)) + part
    out += zlib.crc32(out).to_bytes(CHECKSUM_NBYTES, "little")
    write_atomic(path, out)
    return len(out)


def load(path: str | os.PathLike[str]) -> dict[str, Code]:
    """The codes of a file that `save` wrote.

    Args:
        path: the file.

    Returns:
        Codes by name, in the order in which they were given to `save`.

    Raises:
        WireError: the file holds anything else, is cut off or damaged.
        OSError: the file cannot be read.

    Example:
        >>> nbytes = tg.save("step.telegrad", {"bias": tg.compressor("identity").encode(torch.ones(3))})
        >>> tg.load("step.telegrad")["bias"].decode()
        tensor([1., 1., 1.])
    """
    data = Path(path).read_bytes()
    body, check = memoryview(data)[:-CHECKSUM_NBYTES], data[-CHECKSUM_NBYTES:]
    if not data.startswith(_MAGIC):
        raise WireError(f"{path} is not a telegrad file of version {_MAGIC[-1]}; such a file is written by tg.save")
    if zlib.crc32(body) != int.from_bytes(check, "little"):
        raise WireError(f"{path} is damaged: its checksum does not fit")
    reader = Reader(body)
    reader.take(len(_MAGIC))
    codes: dict[str, Code] = {}
    for _ in range(reader.varint()):
        try:
            name = bytes(reader.take(reader.varint())).decode()
        except UnicodeDecodeError:
            raise WireError(f"{path} holds a name that is not text") from None
        if name in codes:
            raise WireError(f"{path} holds two messages named {name!r}")
        codes[name] = unpack(reader.take(reader.varint()))
    if reader.left:
        raise WireError(f"{path}: {reader.left} bytes follow the last message")
    return codes
