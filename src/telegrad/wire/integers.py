"""Streams of non-negative integers, each in the shortest of its formats: fixed width, Golomb-Rice, entropy coded, in
buckets that are entropy coded, or as few distinct ones and which one each is.

Golomb-Rice: S. W. Golomb, "Run-length encodings", 1966. An entropy code needs a table of frequencies; where it would
be long beside the stream (gaps between places, magnitudes over many octaves), integers go into four buckets an octave
and only these are coded, the bits below being nearly incompressible: neighbours are about equally frequent.
"""

from __future__ import annotations

import numpy as np

from telegrad.errors import WireError
from telegrad.kernels.coding.bit_streams import best_rice, rice_lengths
from telegrad.kernels.coding.bucketed_integers import LARGEST_BUCKET, bucketed, widths_of
from telegrad.kernels.coding.short_streams import packed_shortest
from telegrad.kernels.coding.symbols import counted, folded
from telegrad.wire.bits import (
    Reader,
    pack_fixed,
    pack_rice,
    pack_varied,
    pack_varint,
    unpack_fixed,
    unpack_rice,
    unpack_varied,
)
from telegrad.wire.distinct import distinct
from telegrad.wire.entropy_coded import ALPHABET, coded_bits, entropy_bits, pack_entropy, unpack_entropy

__all__ = ["BITMAP", "BUCKETS", "DISTINCT", "ENTROPY", "FEW", "WORTH_CODING", "ZEROS", "Integers", "read_buckets"]

_RICE_PARAMETERS = 32
_FIXED = 64
_MAX_WIDTH = 62
ENTROPY = 128
"""The format byte of an entropy-coded stream."""
BITMAP = 129
"""The format byte of an index set that is sent as one symbol an entry."""
BUCKETS = 130
"""The format byte of integers that are sent as buckets and what lies below these."""
DISTINCT = 131
"""The format byte of integers of which few are distinct."""
ZEROS = bytes([_FIXED])
"""What a stream of zeros, of any length, is written as."""

WORTH_CODING = 512
"""From so many integers on, a stream may be entropy coded."""
_FEWEST = 12
FEW = 32
"""From a largest integer of so much on, buckets may be shorter."""


class Integers:
    """n integers from 0 to 2^62 − 1, of any integer dtype, in a format byte and what follows it; int8 and int16 are
    taken for signed and sent as `folded` makes them, which saves a copy of long streams.

    0 … 31: Golomb-Rice with that parameter; 64 + w: w <= 62 bits each; 128: interleaved rANS with its frequencies; 130:
    buckets, as one of the former, and the bits below each. These two are taken where the stream has at least 512
    integers, below 4096 for 128, and they are shorter. 131: the distinct integers and, as one of the first three, which
    one each is; where that is shorter.

    `largest`: the largest of them, signed ones as `folded` makes them; 0 where there are none. `nbytes`: the length of
    `write()`. `nested`: whether these are buckets, or say which one of the distinct ones each is: neither is then
    tried.
    """

    def __init__(self, values: np.ndarray, nested: bool = False) -> None:
        self.values, self._nested = values, nested
        packed: bytes | None
        if len(values) < WORTH_CODING:
            b, nbits, packed, largest = packed_shortest(self._unsigned())
            form, counts = b if b >= 0 else _FIXED + largest.bit_length(), None
        else:
            form, nbits, packed, largest, counts = self._one_by_one()
        nbytes = (nbits + 7) // 8
        # Where an entry costs two bits there is little to save; and most streams show early what they are.
        if not nested and (
            counts is not None or (4 * nbytes > len(values) and len(set(values[:32].tolist())) <= _FEWEST)
        ):
            few = self._distinct(counts, nbytes)
            if few is not None:
                form, packed, nbytes = DISTINCT, few, len(few)
        self._form, self._packed, self.largest, self.nbytes = form, packed, int(largest), 1 + nbytes

    def _one_by_one(self) -> tuple[int, int, bytes | None, int, np.ndarray | None]:
        """The format of many integers where each is coded by itself, the length of what follows it in bits, that itself
        where it is packed already; the largest; and how often each occurs, where none is large.
        """
        n, counts = len(self.values), counted(self.values, ALPHABET)
        if counts is None:
            b, rice, largest = best_rice(self._unsigned().astype(np.int64, copy=False))
        else:
            b, rice, largest = *_best_rice_of(counts), len(counts) - 1
        width = int(largest).bit_length()
        form, nbits = (b, int(rice)) if rice < width * n else (_FIXED + width, width * n)
        if not self._nested and int(largest) >= FEW:
            buckets = self._bucketed(counts, int(largest), nbits)
            if buckets is not None:
                return BUCKETS, 8 * len(buckets), buckets, largest, counts
        # The table of frequencies takes about half a byte a symbol.
        if counts is not None and nbits and entropy_bits(counts) / 8 + len(counts) / 2 <= (nbits + 7) // 8:
            coded = pack_entropy(self.values, counts)
            if len(coded) < (nbits + 7) // 8:
                return ENTROPY, 8 * len(coded), coded, largest, counts
        return form, nbits, None, largest, counts

    def _distinct(self, counts: np.ndarray | None, nbytes: int) -> bytes | None:
        """The distinct integers and which one each is, where few are distinct and that is shorter than `nbytes`."""
        if counts is not None:
            table: np.ndarray = np.flatnonzero(counts) if len(counts) > _FEWEST else np.empty(0, dtype=np.int64)
            if not len(table) or 4 * len(table) > len(counts) or coded_bits(counts[table]) / 8 + len(table) >= nbytes:
                return None
            number = np.zeros(len(counts), dtype=np.uint16)
            number[table] = np.arange(len(table))
            which = number[self._unsigned()]
        else:
            found = distinct(self._unsigned())
            if found is None:
                return None
            table, which = found
        packed = _pack_table(table) + Integers(which, nested=True).write()
        return packed if len(packed) < nbytes else None

    def _bucketed(self, counts: np.ndarray | None, largest: int, nbits: int) -> bytes | None:
        """The buckets and the bits below them, where they are shorter than `nbits` and than an entropy code."""
        least: float = nbits
        if counts is not None:
            least = min(least, coded_bits(counts))
            which, below = bucketed(np.arange(len(counts)))
            if int(counts @ below) + coded_bits(np.bincount(which, counts)) >= least:
                return None
        elif largest >> 50:
            return None
        values = self._unsigned().astype(np.int64, copy=False)
        which, widths = bucketed(values)
        if int(widths.sum()) + coded_bits(np.bincount(which)) >= least:
            return None
        return Integers(which, nested=True).write() + pack_varied(values, widths)

    def write(self) -> bytes:
        """The packed integers; their number is known from elsewhere in the message."""
        form, packed = bytes([self._form]), self._packed
        if packed is not None:
            return form + packed
        if self._form >= _FIXED:
            return form + pack_fixed(self._unsigned(), self._form - _FIXED)
        return form + pack_rice(self._unsigned(), self._form)

    def _unsigned(self) -> np.ndarray:
        return folded(self.values) if self.values.dtype in (np.int8, np.int16) else self.values

    @staticmethod
    def read(reader: Reader, n: int, form: int | None = None) -> np.ndarray:
        """Read n integers that `write` wrote, int64; `form` where the format byte has been read already."""
        return Integers.read_narrow(reader, n, form).astype(np.int64, copy=False)

    @staticmethod
    def read_narrow(reader: Reader, n: int, form: int | None = None) -> np.ndarray:
        """The same in the smallest of uint8, uint16 and int64 that surely holds what is read."""
        form = reader.byte() if form is None else form
        if form == BUCKETS:
            return _unpack_buckets(reader, n)
        if form == ENTROPY:
            return unpack_entropy(reader, n)
        if form == DISTINCT:
            return _unpack_distinct(reader, n)
        if form < _RICE_PARAMETERS:
            return unpack_rice(reader, n, form)
        width = form - _FIXED
        if not 0 <= width <= _MAX_WIDTH:
            raise WireError(f"unknown integer format {form} in the message")
        return unpack_fixed(reader, n, width)


def read_buckets(reader: Reader, n: int) -> np.ndarray:
    """The buckets of n integers, uint8, after the format byte; the bits below them follow."""
    form = reader.byte()
    if form in (BUCKETS, DISTINCT):
        raise WireError("the message announces buckets of buckets")
    buckets = Integers.read_narrow(reader, n, form)
    if n and int(buckets.max()) > LARGEST_BUCKET:
        raise WireError(f"integers in the message lie in bucket {int(buckets.max())}; {LARGEST_BUCKET} is the last")
    return buckets.astype(np.uint8, copy=False)


def _unpack_buckets(reader: Reader, n: int) -> np.ndarray:
    buckets = read_buckets(reader, n).astype(np.int64)
    widths = widths_of(buckets)
    values = unpack_varied(reader, widths)
    values |= (buckets - 4 * widths) << widths
    return values


def _pack_table(table: np.ndarray) -> bytes:
    """Increasing integers: their number, the first, and how much each exceeds the one before, less one."""
    gaps = np.diff(table.astype(np.int64), prepend=-1) - 1
    return b"".join(map(pack_varint, (len(table), *gaps.tolist())))


def _unpack_distinct(reader: Reader, n: int) -> np.ndarray:
    size = reader.varint()
    if size > min(n, ALPHABET):
        raise WireError(f"the message announces {size} distinct integers among {n}")
    table, last = [], -1
    for _ in range(size):
        last += 1 + reader.varint()
        table.append(last)
    if last >> _MAX_WIDTH > 0:
        raise WireError("an integer in the message is longer than 62 bits")
    form = reader.byte()
    if form in (BUCKETS, DISTINCT):
        raise WireError("the message nests distinct integers in others")
    which = Integers.read_narrow(reader, n, form)
    if n and int(which.max()) >= size:
        raise WireError(f"the message refers to integer {int(which.max())} of {size} distinct ones")
    dtype = np.uint8 if last < 1 << 8 else np.uint16 if last < 1 << 16 else np.int64
    return np.array(table, dtype=dtype).take(which)


def _best_rice_of(counts: np.ndarray) -> tuple[int, int]:
    """`best_rice` of a stream whose integers occur `counts` times."""
    # From the first b on at which all shifts are zero, lengths grow.
    lengths = rice_lengths(counts, min(12, (len(counts) - 1).bit_length()))
    b = int(lengths.argmin())
    return b, int(lengths[b])
