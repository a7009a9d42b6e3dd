"""Where the entries of a message lie in the flat vector: everywhere, at listed indices, or on a subset or share
drawn from a seed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.gaps import places, raw_bits
from telegrad.kernels.magnitudes import plain
from telegrad.kernels.scatter import taken
from telegrad.kernels.subsets import permutation, subset
from telegrad.random import Key
from telegrad.wire.bits import Reader, pack_varint, varint_nbytes
from telegrad.wire.integers import BITMAP, BUCKETS, Integers, entropy_bits, read_buckets
from telegrad.wire.last_estimate import LastEstimate

__all__ = ["All", "IndexSet", "Nested", "Positions", "Ranked", "Share", "Subset", "read_positions"]

_SPARSE = 8


class Positions(ABC):
    """The `n` places among 0 … d−1, in increasing order, that a term's values belong to."""

    tag: ClassVar[int]
    d: int

    @property
    @abstractmethod
    def n(self) -> int:
        """The number of places."""

    @abstractmethod
    def indices(self) -> Tensor | None:
        """The places as int64, shape (n,), increasing; None stands for all of 0 … d−1."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """The length of `write()`; all of it counts as index bits."""

    @abstractmethod
    def write(self) -> bytes:
        """The packed places; d itself is known from the message's header."""

    @abstractmethod
    def keep(self, which: Tensor) -> Positions:
        """Only the places number `which` (increasing int64) of these."""

    def after(self, last: LastEstimate) -> Positions:
        """These, where they count on the last estimate, with this one."""
        return self


@dataclass(frozen=True)
class All(Positions):
    """Every entry; nothing is sent."""

    tag: ClassVar[int] = 0
    d: int

    @property
    def n(self) -> int:
        return self.d

    def indices(self) -> Tensor | None:
        return None

    @property
    def nbytes(self) -> int:
        return 0

    def write(self) -> bytes:
        return b""

    def keep(self, which: Tensor) -> Positions:
        return IndexSet(self.d, which)


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
        if _SPARSE * n < self.d:
            return False, listed
        # An entropy-coded stream takes 16 bytes and more beyond its entropy.
        least = min(self.d, entropy_bits(np.array([n, self.d - n])) + 128)
        if least / 8 > listed.nbytes:
            return False, listed
        marks = np.zeros(self.d, dtype=np.uint8)
        marks[index] = 1
        bitmap = Integers(marks)
        return (True, bitmap) if 1 + bitmap.nbytes < listed.nbytes else (False, listed)

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


@dataclass(frozen=True)
class Subset(Positions):
    """The uniformly random subset of `size` places that a 64-bit seed stands for: the seed is sent, the indices are
    not.
    """

    tag: ClassVar[int] = 2
    d: int
    size: int
    seed: int

    @property
    def n(self) -> int:
        return self.size

    def indices(self) -> Tensor:
        return self._indices

    @cached_property
    def _indices(self) -> Tensor:
        return subset(Key(self.seed), self.d, self.size)

    @property
    def nbytes(self) -> int:
        return varint_nbytes(self.size) + 8

    def write(self) -> bytes:
        return pack_varint(self.size) + self.seed.to_bytes(8, "little")

    def keep(self, which: Tensor) -> Positions:
        return Nested(self, IndexSet(self.size, which))

    @classmethod
    def read(cls, reader: Reader, d: int) -> Subset:
        """The inverse of `write`."""
        size, seed = reader.varint(), int.from_bytes(reader.take(8), "little")
        if size > d or d >= 2**31:
            raise WireError(f"the message announces a subset of {size} among {d} entries")
        return cls(d, size, seed)


@dataclass(frozen=True)
class Nested(Positions):
    """Listed places within a drawn subset: indices cost log2 of the subset's size, not of d."""

    tag: ClassVar[int] = 3
    outer: Subset
    inner: IndexSet

    @property
    def d(self) -> int:  # type: ignore[override]
        return self.outer.d

    @property
    def n(self) -> int:
        return self.inner.n

    def indices(self) -> Tensor | None:
        return self.outer.indices()[self.inner.index]

    @property
    def nbytes(self) -> int:
        return self.outer.nbytes + self.inner.nbytes

    def write(self) -> bytes:
        return self.outer.write() + self.inner.write()

    def keep(self, which: Tensor) -> Positions:
        return Nested(self.outer, IndexSet(self.inner.d, self.inner.index[which]))

    @classmethod
    def read(cls, reader: Reader, d: int) -> Nested:
        """The inverse of `write`."""
        outer = Subset.read(reader, d)
        return cls(outer, IndexSet.read(reader, outer.size))


@dataclass(frozen=True)
class Share(Positions):
    """Part number `part` of the `parts` that a random permutation, drawn from a 64-bit seed, deals the d places out to.

    Place number p of the permutation goes to part p mod `parts`, so sizes differ by one at most.
    """

    tag: ClassVar[int] = 4
    d: int
    parts: int
    part: int
    seed: int

    @property
    def n(self) -> int:
        return (self.d - self.part - 1) // self.parts + 1

    def indices(self) -> Tensor:
        return self._indices

    @cached_property
    def _indices(self) -> Tensor:
        return torch.from_numpy(np.sort(permutation(Key(self.seed), self.d).numpy()[self.part :: self.parts]))

    @property
    def nbytes(self) -> int:
        return varint_nbytes(self.parts) + varint_nbytes(self.part) + 8

    def write(self) -> bytes:
        return pack_varint(self.parts) + pack_varint(self.part) + self.seed.to_bytes(8, "little")

    def keep(self, which: Tensor) -> Positions:
        return IndexSet(self.d, self._indices[which])

    @classmethod
    def read(cls, reader: Reader, d: int) -> Share:
        """The inverse of `write`."""
        parts, part, seed = reader.varint(), reader.varint(), int.from_bytes(reader.take(8), "little")
        if not part < parts <= d:
            raise WireError(f"the message announces part {part} of {parts} of a vector of {d} entries")
        return cls(d, parts, part, seed)


@dataclass(frozen=True)
class Ranked(Positions):
    """The places of the ranks `start` … `start + size − 1` in the last estimate's order, which every rank knows and
    nobody sends; in the order of the places themselves where it is not `shared`.
    """

    tag: ClassVar[int] = 5
    d: int
    start: int
    size: int
    shared: bool = False
    order: Tensor | None = field(default=None, compare=False, repr=False)

    @property
    def n(self) -> int:
        return self.size

    def indices(self) -> Tensor:
        return self._indices

    @cached_property
    def _indices(self) -> Tensor:
        if not self.shared:
            return torch.arange(self.start, self.start + self.size)
        if self.order is None:
            raise WireError("the message counts on the last estimate's order: decode code.after(last) instead")
        return self.order[self.start : self.start + self.size].sort().values

    @property
    def nbytes(self) -> int:
        return varint_nbytes(self.start) + varint_nbytes(self.size << 1)

    def write(self) -> bytes:
        return pack_varint(self.start) + pack_varint(self.size << 1 | self.shared)

    def keep(self, which: Tensor) -> Positions:
        return self if len(which) == self.size else IndexSet(self.d, taken(self.indices(), which))

    def after(self, last: LastEstimate) -> Positions:
        if not self.shared:
            return self
        if len(last.vector) != self.d:
            raise WireError(f"an estimate of {len(last.vector)} entries orders none of a message of {self.d}")
        return replace(self, order=last.order)

    @classmethod
    def read(cls, reader: Reader, d: int) -> Ranked:
        """The inverse of `write`."""
        start, both = reader.varint(), reader.varint()
        if start + (both >> 1) > d:
            raise WireError(f"the message announces {both >> 1} places from rank {start} on, of {d}")
        return cls(d, start, both >> 1, bool(both & 1))


def read_positions(tag: int, reader: Reader, d: int) -> Positions:
    """Read the positions of kind `tag` for a vector of d entries."""
    if tag == All.tag:
        return All(d)
    if tag == IndexSet.tag:
        return IndexSet.read(reader, d)
    if tag == Subset.tag:
        return Subset.read(reader, d)
    if tag == Nested.tag:
        return Nested.read(reader, d)
    if tag == Share.tag:
        return Share.read(reader, d)
    if tag == Ranked.tag:
        return Ranked.read(reader, d)
    raise WireError(f"unknown kind of positions {tag} in the message")
