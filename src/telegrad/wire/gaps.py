"""Increasing places as the gaps between them, in about as few bits as a random set of places needs.

Golomb-Rice: S. W. Golomb, "Run-length encodings", 1966; mean bits a gap for random sets as in (0.1) of the reference.
From some hundred gaps on an entropy code can save the last per cents, more where places cluster: of buckets of gaps,
since gaps of random sets hardly tell their lowest bits apart, and a table of few symbols costs little.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from telegrad.errors import WireError
from telegrad.kernels.bit_streams import best_rice
from telegrad.kernels.gaps import bucketed, places, raw_bits
from telegrad.wire.bits import Reader, pack_varied
from telegrad.wire.integers import Integers, entropy_bits

__all__ = ["BUCKETS", "Gaps"]

BUCKETS = 130
"""The format byte of gaps that are sent as buckets and what lies below these."""

_WORTH_CODING = 512
_ALPHABET = 4096
_LARGEST_BUCKET = 4 * 50
_TABLE_BITS = 12  # an entry, about
_CODER_BITS = 152


@dataclass(frozen=True)
class Gaps:
    """The places `index`, increasing int64 below 2^53, as gaps: `Integers`, or their buckets as `Integers` and the bits
    below, where that is shorter.
    """

    index: np.ndarray = field(repr=False)

    @cached_property
    def _parts(self) -> tuple[Integers, np.ndarray | None, np.ndarray]:
        """The gaps, or their buckets and the widths of what lies below these; then the gaps."""
        gaps = self.index.copy()
        gaps[1:] -= self.index[:-1]
        gaps[1:] -= 1
        if len(gaps) >= _WORTH_CODING:
            _, rice, largest = best_rice(gaps)
            least = min(rice, _coded_bits(gaps) if largest < _ALPHABET else np.inf)
            buckets, widths = bucketed(gaps)
            if int(widths.sum()) + _coded_bits(buckets) < least:
                return Integers(buckets), widths, gaps
        return Integers(gaps), None, gaps

    @property
    def nbytes(self) -> int:
        """The length of `write()`."""
        integers, widths, _ = self._parts
        return integers.nbytes if widths is None else 1 + integers.nbytes + (int(widths.sum()) + 7) // 8

    def write(self) -> bytes:
        """The packed places; their number is known from elsewhere in the message."""
        integers, widths, gaps = self._parts
        if widths is None:
            return integers.write()
        return bytes([BUCKETS]) + integers.write() + pack_varied(gaps & ((1 << widths) - 1), widths)

    @staticmethod
    def read(reader: Reader, n: int, form: int, d: int) -> np.ndarray:
        """Read n places below d that `write` wrote, after the format byte `form`."""
        if form == BUCKETS:
            buckets = Integers.read_narrow(reader, n)
            if n and int(buckets.max()) >= _LARGEST_BUCKET:
                raise WireError(f"an index set in the message has a gap in bucket {int(buckets.max())}")
            index = places(buckets, reader.plain((raw_bits(buckets) + 7) // 8), d)
        else:
            index = Integers.read(reader, n, form)
            index[1:] += 1
            np.cumsum(index, out=index)
            if n and not (index[0] >= 0 and index[-1] < d and (index[1:] > index[:-1]).all()):
                index = None
        if index is None:
            raise WireError(f"an index in the message lies outside the vector of {d} entries")
        return index


def _coded_bits(symbols: np.ndarray) -> float:
    """About how many bits the entropy code takes, with the table of its symbols."""
    counts = np.bincount(symbols)
    return entropy_bits(counts) + _TABLE_BITS * len(counts) + _CODER_BITS
