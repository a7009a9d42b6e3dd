"""Bit packing: fixed-width integers and Golomb-Rice codes, and a reader that never runs over.

A Rice code of parameter b splits a non-negative integer n into n >> b, in unary, and its b low bits. All unary parts
come first and all low bits after them: the length is that of the interleaved code, and both halves are plain loops.
"""

from __future__ import annotations

import numpy as np

from telegrad.errors import WireError
from telegrad.kernels.bit_streams import get_fixed, get_unary, get_varied, put_fixed, put_unary, put_varied
from telegrad.kernels.symbols import fixed_width, from_fixed_width

__all__ = [
    "Reader",
    "best_rice",
    "pack_bits",
    "pack_fixed",
    "pack_rice",
    "pack_varied",
    "pack_varint",
    "rice_nbits",
    "unpack_fixed",
    "unpack_rice",
    "unpack_varied",
    "varint_nbytes",
]


class Reader:
    """A cursor over received bytes; every read checks that the bytes are there.

    `account`: bytes by field of the ledger, as far as they were booked.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data).cast("B")
        self._at, self._booked = 0, 0
        self.account: dict[str, int] = {}

    def book(self, name: str) -> None:
        """Book all that was read since the last time as this field of the ledger."""
        self.account[name] = self.account.get(name, 0) + self._at - self._booked
        self._booked = self._at

    @property
    def left(self) -> int:
        """The number of bytes not read yet."""
        return len(self._data) - self._at

    def take(self, n: int) -> memoryview:
        """The next n bytes."""
        if n > self.left:
            raise WireError(f"truncated message: {n} more bytes are announced, {self.left} are left")
        self._at += n
        return self._data[self._at - n : self._at]

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """A LEB128 number below 2^63."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise WireError("a number in the message is longer than 63 bits")

    def bits(self, n: int) -> np.ndarray:
        """The next n bits as uint8 zeros and ones, from whole bytes."""
        return np.unpackbits(np.frombuffer(self.take((n + 7) // 8), np.uint8), count=n)

    def peek(self, n: int) -> np.ndarray:
        """Up to n bytes from here on, without moving."""
        return np.frombuffer(self._data[self._at : self._at + n], np.uint8)


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


def rice_nbits(values: np.ndarray, b: int) -> int:
    """The length in bits of the Rice code of `values` with parameter b."""
    return int((values >> b).sum()) + len(values) * (b + 1)


def best_rice(values: np.ndarray) -> tuple[int, int]:
    """The parameter with the shortest Rice code of `values`, and that length in bits."""
    if len(values) == 0:
        return 0, 0
    # The length is convex in b near log2 of the mean, so the neighbours of that guess decide.
    guess = min(31, int(np.log2(max(1.0, float(values.mean())))))
    return min(
        ((b, rice_nbits(values, b)) for b in range(max(0, guess - 1), min(31, guess + 1) + 1)), key=lambda pair: pair[1]
    )


def pack_fixed(values: np.ndarray, width: int) -> bytes:
    """Non-negative integers below 2^width, `width` bits each."""
    return fixed_width(values, width).tobytes()


def unpack_fixed(reader: Reader, n: int, width: int) -> np.ndarray:
    """Read n integers of `width` bits (the inverse of `pack_fixed`), as uint8 where they fit, else int64."""
    return from_fixed_width(np.frombuffer(reader.take((n * width + 7) // 8), np.uint8), n, width)


def pack_varied(values: np.ndarray, widths: np.ndarray) -> bytes:
    """Non-negative int64, each in its own number of bits (int64, up to 56)."""
    out = np.zeros((int(widths.sum()) + 7) // 8, dtype=np.uint8)
    put_varied(values, widths, out)
    return out.tobytes()


def unpack_varied(reader: Reader, widths: np.ndarray) -> np.ndarray:
    """Read integers of these widths as int64 (the inverse of `pack_varied`)."""
    data, values = _plain(reader.take((int(widths.sum()) + 7) // 8)), np.zeros(len(widths), dtype=np.int64)
    get_varied(data, widths, values)
    return values


def pack_rice(values: np.ndarray, b: int) -> bytes:
    """The Rice code of non-negative int64 `values`, padded to whole bytes."""
    if len(values) == 0:
        return b""
    high = values >> b
    unary = int(high.sum()) + len(values)
    out = np.zeros((unary + len(values) * b + 7) // 8, dtype=np.uint8)
    put_unary(high, out[: (unary + 7) // 8])
    if b:
        put_fixed(values & ((1 << b) - 1), b, unary, out)
    return out.tobytes()


def unpack_rice(reader: Reader, n: int, b: int) -> np.ndarray:
    """Read n Rice-coded integers (the inverse of `pack_rice`)."""
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    if n > 8 * reader.left:
        raise WireError(f"truncated message: {n} coded integers cannot lie in {reader.left} bytes")
    high, low = np.empty(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    unary = get_unary(_plain(reader.peek(reader.left)), high)
    if unary < 0:
        raise WireError("truncated message: a run of coded integers has no end")
    data = _plain(reader.take((unary + n * b + 7) // 8))
    if b:
        get_fixed(data, unary, b, low)
    return high << b | low


def _plain(data: memoryview | np.ndarray) -> np.ndarray:
    """Received bytes as an array that nobody writes to, whatever they came in: one compiled form serves all."""
    array = np.frombuffer(data, np.uint8)
    array.flags.writeable = False
    return array
