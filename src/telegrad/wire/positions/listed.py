"""Listed places."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.gaps import places, raw_bits
from telegrad.kernels.magnitudes import plain
from telegrad.kernels.scatter import taken
from telegrad.wire.bits import Reader, pack_varint, varint_nbytes
from telegrad.wire.integers import BITMAP, BUCKETS, Integers, entropy_bits, read_buckets
from telegrad.wire.positions.base import Positions

__all__ = ["SPARSE", "IndexSet", "shorter"]

SPARSE = 8
"""A set is sparse where it has less than one in so many of the entries."""


@dataclass(frozen=True)
class IndexSet(Positions):
    """Listed places: their number, then coded gaps or, for dense sets, a coded bitmap where that is shorter."""

    tag: ClassVar[int] = 1
    d: int
    index: Tensor = field(repr=False)

    @property
    def n(self) -> int:
        return self.index.numel()

    def indices(self) -> Tensor | None:
        return self.index

    @cached_property
    def _form(self) -> tuple[bool, Integers]:
        """Whether one symbol an entry is shorter than the gaps, as in dense sets; and they, or the gaps."""
        index = plain(self.index)
        gaps = index.copy()
        gaps[1:] -= index[:-1]
        gaps[1:] -= 1
        n, listed = len(index), Integers(gaps)
        # In a sparse set gaps come as near to the entropy, at the cost of the places and not of d.
        if SPARSE * n < self.d:
            return False, listed
        marks = np.zeros(self.d, dtype=np.uint8)
        marks[index] = 1
        return shorter(listed, marks, n)

    @property
    def nbytes(self) -> int:
        marked, integers = self._form
        return varint_nbytes(self.n) + marked + integers.nbytes

    def write(self) -> bytes:
        marked, integers = self._form
        return pack_varint(self.n) + (bytes([BITMAP]) if marked else b"") + integers.write()

    def keep(self, which: Tensor) -> Positions:
        return IndexSet(self.d, taken(self.index, which))

    @classmethod
    def read(cls, reader: Reader, d: int) -> IndexSet:
        """The inverse of `write`."""
        n, form = reader.varint(), reader.byte()
        if n > d:
            raise WireError(f"the message lists {n} indices for a vector of {d} entries")
        if form == BITMAP:
            index = np.flatnonzero(Integers.read_narrow(reader, d))
            if len(index) != n:
                raise WireError(f"the message announces {n} indices and marks {len(index)}")
        else:
            index = _read_gaps(reader, n, form, d)
        return cls(d, torch.from_numpy(index))


def shorter(listed: Integers, marks: np.ndarray, n: int) -> tuple[bool, Integers]:
    """Whether the n marks, uint8, are shorter than their gaps, and they or these."""
    # An entropy-coded stream takes 16 bytes and more beyond its entropy.
    least = min(len(marks), entropy_bits(np.array([n, len(marks) - n])) + 128)
    if least / 8 > listed.nbytes:
        return False, listed
    bitmap = Integers(marks)
    return (True, bitmap) if 1 + bitmap.nbytes < listed.nbytes else (False, listed)


def _read_gaps(reader: Reader, n: int, form: int, d: int) -> np.ndarray:
    """n places below d, of whose gaps the format byte has been read."""
    index: np.ndarray | None
    if form == BUCKETS:
        buckets = read_buckets(reader, n)
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
