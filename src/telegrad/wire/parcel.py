"""Parcels: what one worker hands to another in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from telegrad.errors import WireError
from telegrad.kernels.compiled import each, kept
from telegrad.wire.bits import Reader, pack_varint, varint_nbytes
from telegrad.wire.code import Code
from telegrad.wire.message import pack, unpack

__all__ = ["Parcel", "pack_parcel", "unpack_each", "unpack_parcel"]

_LONGEST_FAILURE = 500
_ELEMENTS_A_BYTE = 2  # that a message's loops go through, about


@dataclass(frozen=True, eq=False)
class Parcel:
    """The messages of several pieces; or, in their place, why there are none: `failure` says what was not finite.

    Layout: a byte, 0 for messages and 1 for a failure; then the number of messages and each with its length before it
    (varints); or the failure as UTF-8 text of up to 500 bytes.
    """

    codes: tuple[Code, ...] = ()
    failure: str = ""

    @kept
    def nbytes(self) -> int:
        """The exact length of the packed parcel."""
        if self.failure:
            return 1 + len(_text(self.failure))
        lengths = [code.nbits // 8 for code in self.codes]
        return 1 + varint_nbytes(len(lengths)) + sum(varint_nbytes(length) + length for length in lengths)


def _text(failure: str) -> bytes:
    return failure.encode()[:_LONGEST_FAILURE]


def pack_parcel(parcel: Parcel) -> bytes:
    """The bytes of a parcel: `len(pack_parcel(parcel)) == parcel.nbytes`."""
    if parcel.failure:
        return b"\x01" + _text(parcel.failure)
    out = bytearray(b"\x00" + pack_varint(len(parcel.codes)))
    for code in parcel.codes:
        data = pack(code)
        out += pack_varint(len(data))
        out += data
    return bytes(out)


def unpack_parcel(data: bytes | bytearray | memoryview) -> Parcel:
    """The parcel of bytes that `pack_parcel` made. Raises `WireError` on any others."""
    reader = Reader(memoryview(data).cast("B"))
    kind = reader.byte()
    if kind == 1:
        return Parcel(failure=bytes(reader.take(reader.left)).decode(errors="replace") or "something was not finite")
    if kind != 0:
        raise WireError(f"not a parcel: it starts with {kind}")
    count = reader.varint()
    if count > reader.left:
        raise WireError(f"a parcel announces {count} messages in {reader.left} bytes")
    parcel = Parcel(tuple(unpack(reader.take(reader.varint())) for _ in range(count)))
    if reader.left:
        raise WireError(f"{reader.left} bytes follow a parcel's last message")
    return parcel


def unpack_each(parcels: Sequence[bytes | bytearray | memoryview]) -> list[Parcel]:
    """`unpack_parcel` of every one, long ones by several threads."""
    return each(unpack_parcel, parcels, _ELEMENTS_A_BYTE * sum(map(len, parcels)))
