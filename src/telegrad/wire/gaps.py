"""Increasing places as the gaps between them, in about as few bits as a random set of places needs.

Golomb-Rice: S. W. Golomb, "Run-length encodings", 1966; mean bits a gap for random sets as in (0.1) of the reference.
From some hundred gaps on an entropy code saves the last per cent: of the gaps themselves, or of what lies above their
lowest bits, which are sent as they are. Gaps of random sets hardly tell their lowest bits apart, and a table of few
symbols costs little.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from telegrad.errors import WireError
from telegrad.wire.bits import Reader, best_rice, pack_fixed, unpack_fixed
from telegrad.wire.integers import Integers, entropy_bits

__all__ = ["SPLIT", "Gaps"]

SPLIT = 192
"""Format bytes from here on: gaps without that many lowest bits (from 1), and these."""

_WORTH_CODING = 512
_ALPHABET = 4096
_TABLE_BITS = 12  # an entry, about


@dataclass(frozen=True)
class Gaps:
    """The places `index`, increasing int64 below 2^62, as gaps: a format byte, the lowest bits where they are split
    off, and `Integers`.
    """

    index: np.ndarray = field(repr=False)

    @cached_property
    def _gaps(self) -> np.ndarray:
        return np.diff(self.index, prepend=-1) - 1

    @cached_property
    def _lowest(self) -> int:
        """How many lowest bits are split off."""
        n = len(self.index)
        lowest = max(0, int(self.index[-1] // n).bit_length() - 3) if n >= _WORTH_CODING else 0
        if not lowest:
            return 0
        least = min(best_rice(self._gaps)[1], self._coded_bits(0))
        return lowest if self._coded_bits(lowest) + 16 < least else 0

    def _coded_bits(self, lowest: int) -> float:
        """About how many bits the entropy code takes, with the table of its symbols."""
        high = self._gaps >> lowest
        if int(high.max()) >= _ALPHABET:
            return np.inf
        counts = np.bincount(high)
        return len(high) * lowest + entropy_bits(counts) + _TABLE_BITS * len(counts) + 128

    @cached_property
    def _high(self) -> Integers:
        return Integers(self._gaps >> self._lowest)

    @property
    def nbytes(self) -> int:
        """The length of `write()`."""
        split = 1 + (len(self.index) * self._lowest + 7) // 8 if self._lowest else 0
        return split + self._high.nbytes

    def write(self) -> bytes:
        """The packed places; their number is known from elsewhere in the message."""
        if not self._lowest:
            return self._high.write()
        low = pack_fixed(self._gaps & ((1 << self._lowest) - 1), self._lowest)
        return bytes([SPLIT + self._lowest]) + low + self._high.write()

    @staticmethod
    def read(reader: Reader, n: int, form: int) -> np.ndarray:
        """Read n places that `write` wrote, after the format byte `form`; if they fit the vector is not checked."""
        if form < SPLIT:
            return np.cumsum(Integers.read(reader, n, form) + 1) - 1
        lowest = form - SPLIT
        if not 1 <= lowest < 62:
            raise WireError(f"unknown format {form} of an index set in the message")
        low = unpack_fixed(reader, n, lowest)
        return np.cumsum((Integers.read(reader, n) << lowest | low) + 1) - 1
