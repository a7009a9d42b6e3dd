"""Bit packing: fixed-width integers and Golomb-Rice codes, and a reader that never runs over."""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np
import torch

from telegrad.errors import WireError
from telegrad.kernels.coding.bit_streams import get_rice, get_varied, packed_rice, packed_varied
from telegrad.kernels.coding.symbols import fixed_width, from_fixed_width

__all__ = [
    "DTYPES",
    "FIELDS",
    "SCALARS",
    "Buffer",
    "Reader",
    "Shared",
    "pack_bits",
    "pack_fixed",
    "pack_rice",
    "pack_varied",
    "pack_varint",
    "read_seed",
    "seed_parts",
    "unpack_fixed",
    "unpack_rice",
    "unpack_varied",
    "varint_nbytes",
]

FIELDS = ("header", "level", "index", "value", "sign", "scale")
"""What bits are booked as. Padding to whole bytes counts with the field that it pads."""

Buffer = bytes | memoryview

DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""The dtypes a message can carry; their order is their number on the wire."""

SCALARS = {dtype: struct.Struct("<d" if dtype == torch.float64 else "<f") for dtype in DTYPES}
"""How a scale travels in a message for a tensor of a dtype: as float64 for float64, else as float32."""

_FREE_ENTRIES = 1 << 28


class Shared(bytes):
    """Bytes of a message that the other messages of a parcel mostly have too, so that a parcel sends them once."""


class Reader:
    """A cursor over received bytes; every read checks that the bytes are there.

    `at`, `end`: the places of the next byte, and of the one behind the last. `apart`: a reader of what a parcel keeps
    of the message beside it, because others share it; None for a message by itself. `account`: bits by field of the
    ledger, as far as they were booked; `booked`: how many bytes that is. `bases`: the sizes of the bases that values of
    the message were in so far: each is a table that its length does not pay for.
    """

    bases: frozenset[int] = frozenset()

    def __init__(
        self, data: bytes | bytearray | memoryview, apart: bytes | bytearray | memoryview | None = None
    ) -> None:
        self._data = memoryview(data).cast("B")
        self.at, self.end, self.booked = 0, len(self._data), 0
        self.apart = None if apart is None else Reader(apart)
        self.account = dict.fromkeys(FIELDS, 0)

    def book(self, name: str) -> None:
        """Book all that was read since the last time as this field of the ledger."""
        at = self.at if self.apart is None else self.at + self.apart.at
        self.account[name] += 8 * (at - self.booked)
        self.booked = at

    @property
    def shared(self) -> Reader:
        """The reader of what is written as `Shared`: this one, but in a parcel."""
        return self.apart or self

    @property
    def left(self) -> int:
        """The number of bytes not read yet."""
        return self.end - self.at

    def take(self, n: int) -> memoryview:
        """The next n bytes."""
        if n > self.end - self.at:
            raise WireError(f"truncated message: {n} more bytes are announced, {self.left} are left")
        self.at += n
        return self._data[self.at - n : self.at]

    def byte(self) -> int:
        """The next byte."""
        at = self.at
        if at >= self.end:
            self.take(1)
        self.at = at + 1
        return self._data[at]

    def varint(self) -> int:
        """A LEB128 number below 2^63."""
        at, value = self.at, 0
        if at < self.end and (value := self._data[at]) < 0x80:  # most are
            self.at = at + 1
            return value
        value = 0
        for shift in range(0, 63, 7):
            at = self.at
            if at >= self.end:
                self.take(1)
            self.at, byte = at + 1, self._data[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise WireError("a number in the message is longer than 63 bits")

    def scalar(self, dtype: torch.dtype) -> float:
        """The next scale, as `SCALARS` packs it."""
        form = SCALARS[dtype]
        return float(form.unpack(self.take(form.size))[0])

    def bits(self, n: int) -> np.ndarray:
        """The next n bits as uint8 zeros and ones, from whole bytes."""
        return np.unpackbits(np.frombuffer(self.take((n + 7) // 8), np.uint8), count=n)

    def plain(self, n: int) -> np.ndarray:
        """The next n bytes as an array that nobody writes to, whatever they came in: one compiled form serves all."""
        array = np.frombuffer(self.take(n), np.uint8)
        array.flags.writeable = False
        return array

    def rest(self) -> np.ndarray:
        """All bytes from here on as such an array, without moving."""
        array = np.frombuffer(self._data[self.at :], np.uint8)
        array.flags.writeable = False
        return array


def seed_parts(seed: int) -> list[bytes]:
    """A 64-bit seed: its own 16 bits, and those that the seeds of a step have in common (`Key.to_int`)."""
    packed = seed.to_bytes(8, "little")
    return [packed[:2], Shared(packed[2:])]


def read_seed(reader: Reader) -> int:
    """The inverse of `seed_parts`."""
    if reader.shared is reader:
        return int.from_bytes(reader.take(8), "little")
    return int.from_bytes(reader.take(2), "little") | int.from_bytes(reader.shared.take(6), "little") << 16


@lru_cache(maxsize=4096)  # most are counts and lengths that come again
def pack_varint(n: int) -> bytes:
    """n as LEB128: seven bits a byte, low bits first."""
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def varint_nbytes(n: int) -> int:
    """The length of `pack_varint(n)` in bytes."""
    return max(1, (n.bit_length() + 6) // 7)


def pack_bits(bits: np.ndarray) -> bytes:
    """Zeros and ones, eight a byte, the last byte padded with zeros."""
    return np.packbits(bits).tobytes()


def pack_fixed(values: np.ndarray, width: int) -> bytes:
    """Non-negative integers below 2^width, `width` bits each."""
    return fixed_width(values, width).tobytes()


def unpack_fixed(reader: Reader, n: int, width: int) -> np.ndarray:
    """Read n integers of `width` bits (the inverse of `pack_fixed`), as uint8 where they fit, else int64."""
    if width == 0 and n > max(_FREE_ENTRIES, 8 * reader.end):
        raise WireError(f"the message announces {n} equal entries; {_FREE_ENTRIES} or one a bit are allowed")
    return from_fixed_width(np.frombuffer(reader.take((n * width + 7) // 8), np.uint8), n, width)


def pack_varied(values: np.ndarray, widths: np.ndarray) -> bytes:
    """Of every non-negative int64 its own number of low bits (any integers up to 56)."""
    return packed_varied(values, widths).tobytes()


def unpack_varied(reader: Reader, widths: np.ndarray) -> np.ndarray:
    """Read integers of these widths as int64 (the inverse of `pack_varied`)."""
    values = np.empty(len(widths), dtype=np.int64)
    get_varied(reader.plain((int(widths.sum()) + 7) // 8), widths, values)
    return values


def pack_rice(values: np.ndarray, b: int) -> bytes:
    """The Rice code of non-negative integers, padded to whole bytes."""
    return packed_rice(values, b).tobytes()


def unpack_rice(reader: Reader, n: int, b: int) -> np.ndarray:
    """Read n Rice-coded integers (the inverse of `pack_rice`)."""
    left = reader.end - reader.at
    if n > 8 * left:
        raise WireError(f"truncated message: {n} coded integers cannot lie in {left} bytes")
    values = np.empty(n, dtype=np.int64)
    nbits = get_rice(reader.rest(), b, values)
    if nbits < 0:
        raise WireError("truncated message: a run of coded integers has no end")
    # A run is no longer than the message, so only in very long ones could an integer exceed 62 bits, or even 64.
    bits = 8 * left
    if n and bits >> (62 - b) and (bits >> (64 - b) or int(values.min()) < 0 or int(values.max()) >> 62):
        raise WireError("an integer in the message is longer than 62 bits")
    reader.take((nbits + 7) // 8)
    return values
