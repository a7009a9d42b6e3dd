"""Parcels: what one worker hands to another in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter

from telegrad.errors import WireError
from telegrad.kernels.device import away_from_default_device
from telegrad.kernels.threads import kept
from telegrad.wire.bits import Buffer, Reader, Shared, pack_varint, varint_nbytes
from telegrad.wire.code import CHECKSUM_NBYTES, Code
from telegrad.wire.message import checked, message_parts, read_message, read_whole, shared_bytes, sound

__all__ = ["ELEMENTS_A_BYTE", "Parcel", "pack_parcel", "unpack_parcel"]

_WHOLE, _FAILURE, _SHARING = range(3)
_LONGEST_FAILURE = 500
ELEMENTS_A_BYTE = 2
"""That a message's loops go through, about."""


@dataclass(frozen=True, eq=False)
class Parcel:
    """The messages of several pieces; or, in their place, why there are none: `failure` says what was not finite.

    Layout: a byte that says which, then

    * 1: the failure as UTF-8 text of up to 500 bytes;
    * 0: the number of messages and each with its length before it (varints), as `pack` makes it;
    * 2: the number of messages; for each, the number of what it shares with others (its version, dtype, kinds and the
      seed of the step), and the length of the rest, and the rest; what is shared stands before the first message that
      has it, with its length. At the end the CRC-32 of all.

    Two messages or more are sent as 2: that is never longer, and many small ones pay for their heads once.
    """

    codes: tuple[Code, ...] = ()
    failure: str = ""
    received: tuple[int, ...] | None = field(default=None, repr=False)
    """Of a parcel that was read: its `lengths`."""

    @kept
    @away_from_default_device
    def lengths(self) -> tuple[int, ...]:
        """The bytes that each message takes in the parcel. Where there are several, its length is one of them, and the
        parcel's frame is the first message's.
        """
        if self.received is not None:
            return self.received
        if len(self.codes) < 2:
            return tuple([code.nbits // 8 for code in self.codes])
        numbers: dict[bytes, int] = {}
        taken = [1 + varint_nbytes(len(self.codes)) + CHECKSUM_NBYTES] + [0] * (len(self.codes) - 1)
        for i, code in enumerate(self.codes):
            shared, known = shared_bytes(code), len(numbers)
            number = numbers.setdefault(shared, known)
            taken[i] += varint_nbytes(number) + (number == known) * (varint_nbytes(len(shared)) + len(shared))
            own = code.nbits // 8 - CHECKSUM_NBYTES - len(shared)
            taken[i] += varint_nbytes(own) + own
        return tuple(taken)

    @property
    def fields(self) -> tuple[Mapping[str, int], ...]:
        """Bits by field of each message, as many as it takes in the parcel.

        What it shares with one before is taken off its header and, where that is not enough, off its places.
        """
        return self._spread if len(self.codes) > 1 else tuple(map(_fields, self.codes))

    @kept
    @away_from_default_device
    def _spread(self) -> tuple[Mapping[str, int], ...]:
        return tuple(map(_spread, self.codes, self.lengths))

    @kept
    @away_from_default_device
    def nbytes(self) -> int:
        """The exact length of the packed parcel."""
        if self.failure:
            return 1 + len(_text(self.failure))
        return sum(self.lengths) + (sum(map(varint_nbytes, self.lengths), 2) if len(self.codes) < 2 else 0)


_fields = attrgetter("fields")


def _spread(code: Code, length: int) -> Mapping[str, int]:
    account = dict(code.fields)
    header = account["header"] + 8 * length - code.nbits
    account["header"] = max(0, header)
    account["index"] += min(0, header)
    return account


def _text(failure: str) -> bytes:
    return failure.encode()[:_LONGEST_FAILURE]


@away_from_default_device
def pack_parcel(parcel: Parcel) -> bytes:
    """The bytes of a parcel: `len(pack_parcel(parcel)) == parcel.nbytes`."""
    if parcel.failure:
        return bytes([_FAILURE]) + _text(parcel.failure)
    count = pack_varint(len(parcel.codes))
    if len(parcel.codes) < 2:
        whole = [bytes([_WHOLE]), count]
        for code in parcel.codes:
            message = checked(message_parts(code))
            whole += [pack_varint(len(message)), message]
        return b"".join(whole)
    out: list[Buffer] = [bytes([_SHARING]), count]
    numbers: dict[bytes, int] = {}
    for code in parcel.codes:
        parts = message_parts(code)
        shared, own = b"".join(p for p in parts if type(p) is Shared), [p for p in parts if type(p) is not Shared]
        known = len(numbers)
        number = numbers.setdefault(shared, known)
        out.append(pack_varint(number))
        if number == known:
            out += [pack_varint(len(shared)), shared]
        out += [pack_varint(sum(memoryview(part).nbytes for part in own)), *own]
    return checked(out)


@away_from_default_device
def unpack_parcel(data: bytes | bytearray | memoryview, numels: Sequence[int] | None = None) -> Parcel:
    """The parcel of bytes that `pack_parcel` made. Raises `WireError` on any others.

    `numels`: the number of entries of each message that is expected; others are refused before memory is reserved.
    """
    view = memoryview(data).cast("B")
    reader = Reader(view)
    kind = reader.byte()
    if kind == _FAILURE:
        return Parcel(failure=bytes(reader.take(reader.left)).decode(errors="replace") or "something was not finite")
    if kind == _SHARING:
        return _unpack_sharing(view, numels)
    if kind != _WHOLE:
        raise WireError(f"not a parcel: it starts with {kind}")
    found, lengths, count = [], [], reader.varint()
    for numel in _numels(count, reader, numels) if numels is None or count != len(numels) else numels:
        lengths.append(reader.varint())
        found.append(read_whole(reader.take(lengths[-1]), numel))
    if reader.at < reader.end:
        raise _followed(reader)
    if len(found) > 1:
        lengths = [varint_nbytes(length) + length for length in lengths]
        lengths[0] += 1 + varint_nbytes(len(found))
    return Parcel(tuple(found), received=tuple(lengths))


def _numels(count: int, reader: Reader, expected: Sequence[int] | None) -> Sequence[int | None]:
    """The number of entries of each of the messages, None where it is not known."""
    if expected is not None and count != len(expected):
        raise WireError(f"a parcel holds {count} messages where {len(expected)} are expected")
    if count > reader.end - reader.at:
        raise WireError(f"a parcel announces {count} messages in {reader.left} bytes")
    return [None] * count if expected is None else expected


def _followed(reader: Reader) -> WireError:
    return WireError(f"{reader.left} bytes follow a parcel's last message")


def _unpack_sharing(view: memoryview, numels: Sequence[int] | None) -> Parcel:
    if len(view) <= CHECKSUM_NBYTES or not sound(view):
        raise WireError("the parcel is damaged: its checksum does not fit")
    reader = Reader(view[1:-CHECKSUM_NBYTES])
    wanted, left = _numels(reader.varint(), reader, numels), []
    known: list[memoryview] = []
    found: list[Code] = []
    for numel in wanted:
        number = reader.varint()
        if number > len(known):
            raise WireError(f"a message shares number {number} of {len(known)} in the parcel")
        if number == len(known):
            known.append(reader.take(reader.varint()))
        found.append(read_message(reader.take(reader.varint()), numel, known[number]))
        left.append(reader.left)
    if reader.at < reader.end:
        raise _followed(reader)
    return Parcel(tuple(found), received=tuple(a - b for a, b in pairwise([len(view), *left])))
