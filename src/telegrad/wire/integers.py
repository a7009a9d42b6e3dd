"""Streams of non-negative integers, each in the shortest of its formats: fixed width, Golomb-Rice, or entropy coded."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from telegrad.errors import WireError
from telegrad.kernels.rans import rans_decode, rans_encode
from telegrad.wire.bits import (
    Reader,
    best_rice,
    pack_fixed,
    pack_rice,
    pack_varint,
    unpack_fixed,
    unpack_rice,
)

__all__ = ["BITMAP", "ENTROPY", "Integers", "entropy_bits"]

_RICE_PARAMETERS = 32
_FIXED = 64
_MAX_WIDTH = 62
ENTROPY = 128
"""The format byte of an entropy-coded stream."""
BITMAP = 129
"""The format byte of an index set that is sent as one symbol an entry."""

_ALPHABET = 4096
_WORTH_CODING = 512
_FREQUENCY_WIDTH = 5


def entropy_bits(counts: np.ndarray) -> float:
    """n · H, the empirical entropy in bits of a whole stream whose symbols occur `counts` times."""
    present = counts[counts > 0].astype(np.float64)
    return float(-(present * np.log2(present / present.sum())).sum()) if len(present) else 0.0


@dataclass(frozen=True)
class Integers:
    """n integers from 0 to 2^62 − 1, int64, in a format byte and what follows it.

    0 … 31: Golomb-Rice with that parameter; 64 + w: w <= 62 bits each; 128: interleaved rANS with its frequencies. The
    last is taken where the stream has at least 512 integers below 4096 and it is shorter.
    """

    values: np.ndarray = field(repr=False)

    @cached_property
    def _plain(self) -> tuple[int, int]:
        """The better of fixed width and Golomb-Rice: (format, bits)."""
        n = len(self.values)
        width = int(self.values.max()).bit_length() if n else 0
        b, rice = best_rice(self.values)
        return (b, rice) if rice < width * n else (_FIXED + width, width * n)

    @cached_property
    def _coded(self) -> bytes | None:
        """The entropy-coded stream, where that is shorter."""
        nbytes = (self._plain[1] + 7) // 8
        if len(self.values) < _WORTH_CODING or nbytes == 0 or int(self.values.max()) >= _ALPHABET:
            return None
        counts = np.bincount(self.values)
        if entropy_bits(counts) / 8 + len(counts) / 2 > nbytes:
            return None
        coded = _pack_entropy(self.values, counts)
        return coded if len(coded) < nbytes else None

    @property
    def nbytes(self) -> int:
        """The length of `write()`."""
        return 1 + (len(self._coded) if self._coded is not None else (self._plain[1] + 7) // 8)

    def write(self) -> bytes:
        """The packed integers; their number is known from elsewhere in the message."""
        if self._coded is not None:
            return bytes([ENTROPY]) + self._coded
        form, _ = self._plain
        body = pack_fixed(self.values, form - _FIXED) if form >= _FIXED else pack_rice(self.values, form)
        return bytes([form]) + body

    @staticmethod
    def read(reader: Reader, n: int, form: int | None = None) -> np.ndarray:
        """Read n integers that `write` wrote; `form` where the format byte has been read already."""
        form = reader.byte() if form is None else form
        if form == ENTROPY:
            return _unpack_entropy(reader, n)
        if form < _RICE_PARAMETERS:
            return unpack_rice(reader, n, form)
        width = form - _FIXED
        if not 0 <= width <= _MAX_WIDTH:
            raise WireError(f"unknown integer format {form} in the message")
        return unpack_fixed(reader, n, width)


def _lanes(n: int) -> int:
    return 4 if n < 1 << 16 else 16


def _precision(n: int, alphabet: int) -> int:
    """Bits of the frequencies: fine enough for the stream's length and to give every symbol one."""
    return min(15, max(10, n.bit_length() - 3, alphabet.bit_length() + 1))


def _quantised(counts: np.ndarray, bits: int) -> np.ndarray:
    """Frequencies that add up to 2^bits, at least 1 where the count is, close to the counts' shares."""
    total, goal = int(counts.sum()), 1 << bits
    frequency = np.where(counts > 0, np.maximum(1, counts * goal // total), 0)
    # What rounding leaves over goes to the commonest symbols, which lose least by it; a deficit is taken from them.
    for symbol in np.argsort(-counts, kind="stable"):
        change = max(goal - int(frequency.sum()), 1 - int(frequency[symbol]))
        if change == 0:
            break
        frequency[symbol] += change
    return frequency


def _pack_entropy(values: np.ndarray, counts: np.ndarray) -> bytes:
    bits, lanes = _precision(len(values), len(counts)), _lanes(len(values))
    frequency = _quantised(counts, bits)
    states, words = rans_encode(values, frequency, bits, lanes)
    # Each frequency as its length in bits and, where that exceeds one, the bits below the leading one.
    lengths = np.array([int(f).bit_length() for f in frequency], dtype=np.int64)
    tails = [
        (int(f) >> place) & 1
        for f, length in zip(frequency, lengths, strict=True)
        for place in range(length - 2, -1, -1)
    ]
    out = bytes([bits]) + pack_varint(len(frequency)) + pack_fixed(lengths, _FREQUENCY_WIDTH)
    out += pack_fixed(np.array(tails, dtype=np.int64), 1)
    return out + states.astype("<u4").tobytes() + pack_varint(len(words)) + words.astype("<u2").tobytes()


def _unpack_entropy(reader: Reader, n: int) -> np.ndarray:
    bits, alphabet = reader.byte(), reader.varint()
    if not 1 <= bits <= 15 or alphabet > _ALPHABET:
        raise WireError(f"an entropy-coded stream of {alphabet} symbols with {bits}-bit frequencies is not ours")
    lengths = unpack_fixed(reader, alphabet, _FREQUENCY_WIDTH)
    tails = iter(unpack_fixed(reader, int(np.maximum(lengths - 1, 0).sum()), 1).tolist())
    frequency = np.zeros(alphabet, dtype=np.int64)
    for symbol, length in enumerate(lengths.tolist()):
        value = 1 if length else 0
        for _ in range(length - 1):
            value = value << 1 | next(tails)
        frequency[symbol] = value
    if int(frequency.sum()) != 1 << bits:
        raise WireError("the frequencies of an entropy-coded stream do not add up")
    states = np.frombuffer(reader.take(4 * _lanes(n)), "<u4")
    words = np.frombuffer(reader.take(2 * reader.varint()), "<u2")
    values = rans_decode(words, states, n, frequency, bits)
    if values is None:
        raise WireError("an entropy-coded stream does not end where it should")
    return values
