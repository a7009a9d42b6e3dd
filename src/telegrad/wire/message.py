"""pack and unpack: a code as bytes, self-describing, versioned and checked.

Layout: version and dtype (4 bits each); rank and dimensions, level, number of terms (varints); for each term a byte
with the kinds of its positions and values, the positions, the values; CRC-32 of all before it.
"""

from __future__ import annotations

import math
import zlib

from telegrad.errors import InputError, WireError
from telegrad.kernels.device import away_from_default_device
from telegrad.wire.bits import Reader, pack_varint
from telegrad.wire.code import CHECKSUM_NBYTES, Code, Term
from telegrad.wire.positions import read_positions
from telegrad.wire.values import DTYPES, read_values
from telegrad.wire.values.base import Buffer

__all__ = ["VERSION", "pack", "unpack"]

VERSION = 1
_MAX_RANK = 64
_MAX_NUMEL = 2**40


@away_from_default_device
def pack(code: Code) -> bytes:
    """The message of a code: `8 * len(pack(code)) == code.nbits`, always."""
    if not isinstance(code, Code):
        raise InputError(f"pack takes a code, not a {type(code).__name__}: write pack(compressor.encode(x, key))")
    parts: list[Buffer] = [bytes([VERSION << 4 | DTYPES.index(code.dtype)])]
    parts += map(pack_varint, (len(code.shape), *code.shape, code.level, len(code.terms)))
    for term in code.terms:
        parts.append(bytes([term.positions.tag << 4 | term.values.tag]))
        parts += (term.positions.write(), *term.values.parts(code.dtype))
    check = 0
    for part in parts:
        check = zlib.crc32(part, check)
    parts.append(check.to_bytes(CHECKSUM_NBYTES, "little"))
    return b"".join(parts)


@away_from_default_device
def unpack(data: bytes | bytearray | memoryview) -> Code:
    """The code of a message that `pack` made; its tensors lie on the CPU.

    Raises `WireError` on anything else: truncated, damaged, foreign or of another version.
    """
    try:
        view = memoryview(data).cast("B")
    except TypeError:
        raise InputError(f"unpack takes bytes, not a {type(data).__name__}: write unpack(bytes(data))") from None
    if len(view) < CHECKSUM_NBYTES + 4:
        raise WireError(f"a message of {len(view)} bytes is shorter than any header")
    body, check = view[:-CHECKSUM_NBYTES], view[-CHECKSUM_NBYTES:]
    if body[0] >> 4 != VERSION:
        raise WireError(f"not a telegrad message of version {VERSION}: it says version {body[0] >> 4}")
    if zlib.crc32(body) != int.from_bytes(check, "little"):
        raise WireError("the message is damaged: its checksum does not fit")
    reader = Reader(body)
    dtype_code, rank = reader.byte() & 0xF, reader.varint()
    if dtype_code >= len(DTYPES) or rank > _MAX_RANK:
        raise WireError(f"unknown dtype {dtype_code} or rank {rank} in the message")
    shape = tuple(reader.varint() for _ in range(rank))
    reader.book("header")
    numel, level = math.prod(shape), reader.varint()
    reader.book("level")
    n_terms = reader.varint()
    reader.book("header")
    if numel > _MAX_NUMEL:
        raise WireError(f"the message announces {numel} entries; up to {_MAX_NUMEL} are allowed")
    try:
        terms = tuple(_read_term(reader, numel, dtype_code) for _ in range(min(n_terms, reader.left + 1)))
    except MemoryError:
        raise WireError(f"the message announces {numel} entries, more than the memory holds") from None
    if reader.left:
        raise WireError(f"{reader.left} bytes follow the end of the message")
    reader.account["header"] += CHECKSUM_NBYTES
    return Code(shape, DTYPES[dtype_code], terms, level, received=reader.account)


def _read_term(reader: Reader, numel: int, dtype_code: int) -> Term:
    kinds = reader.byte()
    reader.book("header")
    positions = read_positions(kinds >> 4, reader, numel)
    reader.book("index")
    return Term(positions, read_values(kinds & 0xF, reader, positions.n, DTYPES[dtype_code]))
