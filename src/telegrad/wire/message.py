"""pack and unpack: a code as bytes, self-describing, versioned and checked.

Layout: version and dtype (4 bits each); rank and dimensions, level, number of terms (varints); for each term a byte
with the kinds of its positions and values, the positions, the values; CRC-32 of all before it.
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache

import torch

from telegrad.errors import InputError, WireError
from telegrad.kernels.device import away_from_default_device
from telegrad.wire.bits import Buffer, Reader, Shared, pack_varint
from telegrad.wire.code import CHECKSUM_NBYTES, Code, Term
from telegrad.wire.positions import POSITIONS
from telegrad.wire.values import DTYPES, VALUES, Floats

__all__ = [
    "VERSION",
    "checked",
    "message_parts",
    "pack",
    "read_message",
    "read_whole",
    "shared_bytes",
    "sound",
    "unpack",
]

VERSION = 1
_MAX_RANK = 64
_MAX_NUMEL = 2**40
_FREE = 256
"""So many times the tensor's entries may a message's terms hold beyond one a bit: what no bits pay for still takes
memory.
"""


@away_from_default_device
def pack(code: Code) -> bytes:
    """The message of a code, as bytes.

    Args:
        code: what `compressor.encode` made.

    Returns:
        The message: self-describing, versioned, with a checksum. `8 * len(pack(code)) == code.nbits`, always.

    Raises:
        InputError: `code` is no code.

    Example:
        >>> code = tg.compressor("topk(k=2)").encode(torch.tensor([3.0, 0.0, -4.0, 1.0]))
        >>> len(tg.pack(code)), code.nbits
        (22, 176)
    """
    if not isinstance(code, Code):
        raise InputError(f"pack takes a code, not a {type(code).__name__}: write pack(compressor.encode(x, key))")
    return checked(message_parts(code))


def checked(parts: list[Buffer]) -> bytes:
    """All parts, and the CRC-32 of them."""
    check = 0
    for part in parts:
        check = zlib.crc32(part, check)
    return b"".join([*parts, check.to_bytes(CHECKSUM_NBYTES, "little")])


def message_parts(code: Code) -> list[Buffer]:
    """A message but for its checksum, in pieces: what the messages of a parcel share is marked as `Shared`."""
    parts: list[Buffer] = [
        *_head(code.shape, code.dtype),
        pack_varint(code.level),
        Shared(pack_varint(len(code.terms))),
    ]
    for term in code.terms:
        parts.append(_kinds(term))
        parts += term.positions.parts()
        parts += term.values.parts(code.dtype)
    return parts


def shared_bytes(code: Code) -> bytes:
    """The `Shared` ones of `message_parts(code)`, joined, without packing the message."""
    parts = [*_head(code.shape, code.dtype)[:2], pack_varint(len(code.terms))]
    for term in code.terms:
        parts += [_kinds(term), term.positions.shared_bytes, term.values.shared_bytes(code.dtype)]
    return b"".join(parts)


def _another_version(first: int) -> WireError:
    return WireError(f"not a telegrad message of version {VERSION}: it says version {first >> 4}")


@lru_cache(maxsize=4096)
def _head(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[bytes, ...]:
    """Version and dtype, the rank, the dimensions: the same in every message of a tensor."""
    version, rank = Shared([VERSION << 4 | DTYPES.index(dtype)]), Shared(pack_varint(len(shape)))
    return version, rank, *map(pack_varint, shape)


def _kinds(term: Term) -> Shared:
    return Shared([term.positions.tag << 4 | term.values.tag])


@away_from_default_device
def unpack(data: bytes | bytearray | memoryview, numel: int | None = None) -> Code:
    """The code of a message that `pack` made.

    Args:
        data: the message.
        numel: the number d of entries of the tensor, where the receiver knows it: give it for messages of strangers.
            A message for another number is refused before memory is reserved for it; without it a short message may
            stand for any number of equal entries.

    Returns:
        The code; its tensors lie on the CPU.

    Raises:
        WireError: anything but such a message: truncated, damaged, foreign or of another version.
        InputError: `data` is not bytes.

    Example:
        >>> message = tg.pack(tg.compressor("topk(k=2)").encode(torch.tensor([3.0, 0.0, -4.0, 1.0])))
        >>> tg.unpack(message, numel=4).decode()
        tensor([ 3.,  0., -4.,  0.])
    """
    try:
        view = memoryview(data).cast("B")
    except TypeError:
        remedies = {str: 'read them by open(file, "rb")', Code: "write code.decode(), it is read already"}
        remedy = remedies.get(type(data), "write unpack(bytes(data))")
        raise InputError(f"unpack takes bytes, not a {type(data).__name__}: {remedy}") from None
    return read_whole(view, numel)


def read_whole(view: memoryview, numel: int | None = None) -> Code:
    """`unpack` of bytes that a parcel holds."""
    if len(view) < CHECKSUM_NBYTES + 4:
        raise WireError(f"a message of {len(view)} bytes is shorter than any header")
    if view[0] >> 4 != VERSION:
        raise _another_version(view[0])
    if not sound(view):
        raise WireError("the message is damaged: its checksum does not fit")
    return read_message(view[:-CHECKSUM_NBYTES], numel)


def sound(view: memoryview) -> bool:
    """Whether the last bytes are the CRC-32 of all others."""
    return zlib.crc32(view[:-CHECKSUM_NBYTES]) == int.from_bytes(view[-CHECKSUM_NBYTES:], "little")


def read_message(data: memoryview, numel: int | None = None, apart: memoryview | None = None) -> Code:
    """The code of a message but for its checksum. `numel`: see `unpack`; `apart`: see `Reader`."""
    reader = Reader(data, apart)
    shared = reader.apart or reader
    first, rank = shared.byte(), shared.varint()
    if first >> 4 != VERSION:
        raise _another_version(first)
    if first & 0xF >= len(DTYPES) or rank > _MAX_RANK:
        raise WireError(f"unknown dtype {first & 0xF} or rank {rank} in the message")
    dtype = DTYPES[first & 0xF]
    shape = (reader.varint(),) if rank == 1 else tuple([reader.varint() for _ in range(rank)])
    reader.book("header")
    announced, level = math.prod(shape), reader.varint()
    reader.book("level")
    count, terms = shared.varint(), []
    if (announced or math.prod(size or 1 for size in shape)) > _MAX_NUMEL:
        raise WireError(f"the message announces {announced} entries; up to {_MAX_NUMEL} are allowed")
    if numel is not None and announced != numel:
        raise WireError(f"the message is for {announced} entries, where {numel} are expected")
    free, paper_bits = _FREE * announced, 0
    for _ in range(count):
        before, kinds = reader.at, shared.byte()
        reader.book("header")
        term, n, bits = _read_term(reader, kinds, announced, dtype)
        terms.append(term)
        paper_bits += bits
        unpaid = n - 8 * (reader.at - before)
        if unpaid > 0:
            free -= unpaid
            if free < 0:
                raise WireError(f"the message announces {count} terms with more entries than {announced} need")
    if reader.at < reader.end or shared.at < shared.end:
        left = reader.left + (shared.left if shared is not reader else 0)
        raise WireError(f"{left} bytes follow the end of the message")
    reader.book("header")
    reader.account["header"] += 8 * CHECKSUM_NBYTES
    return Code(shape, dtype, tuple(terms), level, reader.account, paper_bits)


def _read_term(reader: Reader, kinds: int, d: int, dtype: torch.dtype) -> tuple[Term, int, int]:
    """The term of these kinds for a tensor of d entries, how many it has, and its bits in the paper's accounting."""
    before = reader.booked
    try:
        positions = POSITIONS[kinds >> 4].read(reader, d)
        reader.book("index")
        n = positions.n
        values = VALUES[kinds & 0xF].read(reader, n, dtype)
    except MemoryError:
        raise WireError(f"the message announces {d} entries, more than the memory holds") from None
    reader.book("value")
    return Term(positions, values), n, 64 * n if isinstance(values, Floats) else 8 * (reader.booked - before)
