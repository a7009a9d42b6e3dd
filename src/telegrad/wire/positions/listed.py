"""Listed places."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.coding.bitmaps import gaps_between
from telegrad.kernels.coding.bucketed_integers import gaps_of, places, raw_bits
from telegrad.kernels.coding.scatter import narrow
from telegrad.kernels.threads import kept
from telegrad.wire.bits import Reader, pack_varint, varint_nbytes
from telegrad.wire.entropy_coded import entropy_bits
from telegrad.wire.integers import BITMAP, BUCKETS, Integers, read_buckets
from telegrad.wire.positions.base import Positions

__all__ = ["IndexSet", "marked"]

_NO_OVERFLOW = 1 << 62
_SPARSE = 8  # with less than one in so many of the entries a set is sparse


@dataclass(frozen=True)
class IndexSet(Positions):
    """Listed places: their number, then coded gaps or, for dense sets, a coded bitmap where that is shorter."""

    tag: ClassVar[int] = 1
    d: int
    given: Tensor = field(repr=False)
    """The places as int64, or as `narrow` makes them; or, as `marked` does, d marks, bool."""

    @property
    def n(self) -> int:
        return self._count if self.given.dtype == torch.bool else self.given.numel()

    @kept
    def _count(self) -> int:
        return int(np.count_nonzero(self.given.numpy()))

    @property
    def index(self) -> Tensor:
        """The places as int64; made anew where they came narrow or as marks, for the memory."""
        given = self.given
        return torch.from_numpy(np.flatnonzero(given.numpy())) if given.dtype == torch.bool else given.long()

    def indices(self) -> Tensor | None:
        return self.index

    def narrow_indices(self) -> Tensor | None:
        return self.index if self.given.dtype == torch.bool else self.given

    @kept
    def _form(self) -> tuple[bool, Integers]:
        """Whether one symbol an entry is shorter than the gaps, as in dense sets; and they, or the gaps."""
        marks = self.given.numpy() if self.given.dtype == torch.bool else None
        listed = Integers(gaps_of(self.given.long().numpy()) if marks is None else gaps_between(marks))
        # In a sparse set gaps come as near to the entropy, at the cost of the places and not of d.
        if _SPARSE * self.n < self.d:
            return False, listed
        # An entropy-coded stream takes 16 bytes and more beyond its entropy.
        least = min(self.d, entropy_bits(np.array([self.n, self.d - self.n])) + 128)
        if least / 8 > listed.nbytes:
            return False, listed
        if marks is None:
            marks = np.zeros(self.d, dtype=np.uint8)
            marks[self.given.numpy()] = 1
        bitmap = Integers(marks.view(np.uint8))
        return (True, bitmap) if 1 + bitmap.nbytes < listed.nbytes else (False, listed)

    @property
    def nbytes(self) -> int:
        marked, integers = self._form
        return varint_nbytes(self.n) + marked + integers.nbytes

    def parts(self) -> list[bytes]:
        marked, integers = self._form
        return [pack_varint(self.n), bytes([BITMAP]) if marked else b"", integers.write()]

    def keep(self, which: Tensor) -> Positions:
        return IndexSet(self.d, torch.from_numpy(self.index.numpy()[which.numpy()]))

    @classmethod
    def read(cls, reader: Reader, d: int) -> IndexSet:
        n, form = reader.varint(), reader.byte()
        if n > d:
            raise WireError(f"the message lists {n} indices for a vector of {d} entries")
        index: np.ndarray | None
        if form == BITMAP:
            index = np.flatnonzero(Integers.read_narrow(reader, d)).astype(narrow(d))
            if len(index) != n:
                raise WireError(f"the message announces {n} indices and marks {len(index)}")
        elif form == BUCKETS:
            buckets = read_buckets(reader, n)
            index = places(buckets, reader.plain((raw_bits(buckets) + 7) // 8), d)
        else:
            index = Integers.read_narrow(reader, n, form).astype(np.int64, copy=False)
            index[1:] += 1
            widest = int(index.max()) if n else 0
            np.cumsum(index, out=index)
            # Gaps are not negative: where none is wider than the vector, sums could only overflow in very large ones.
            if n and not (widest <= d and index[-1] < d and (n * d < _NO_OVERFLOW or (index[1:] > index[:-1]).all())):
                index = None
        if index is None:
            raise WireError(f"an index in the message lies outside the vector of {d} entries")
        return cls(d, torch.from_numpy(index.astype(narrow(d), copy=False)))


def marked(marks: np.ndarray) -> IndexSet:
    """The marked places (bool, shape (d,)), kept as marks where a list of them would be longer."""
    dense = _SPARSE * int(np.count_nonzero(marks)) >= len(marks)
    return IndexSet(len(marks), torch.from_numpy(marks if dense else np.flatnonzero(marks)))
