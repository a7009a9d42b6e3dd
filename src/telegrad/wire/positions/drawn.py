"""Places that a seed stands for: a random subset, listed places within one, a share of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.coding.scatter import narrow, taken
from telegrad.kernels.random_numbers.permutation_shares import dealt
from telegrad.kernels.random_numbers.subsets import subset
from telegrad.kernels.threads import kept
from telegrad.random import Key
from telegrad.wire.bits import Reader, pack_varint, read_seed, seed_parts, varint_nbytes
from telegrad.wire.positions.base import Positions
from telegrad.wire.positions.listed import IndexSet

__all__ = ["Nested", "Share", "Subset"]


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
        return self._drawn.long()

    def narrow_indices(self) -> Tensor:
        return self._drawn

    @kept
    def _drawn(self) -> Tensor:
        return subset(Key(self.seed), self.d, self.size, narrow(self.d))

    @property
    def nbytes(self) -> int:
        return varint_nbytes(self.size) + 8

    def parts(self) -> list[bytes]:
        return [pack_varint(self.size), *seed_parts(self.seed)]

    @property
    def shared_bytes(self) -> bytes:
        return seed_parts(self.seed)[1]

    def keep(self, which: Tensor) -> Positions:
        return Nested(self, IndexSet(self.size, which))

    @classmethod
    def read(cls, reader: Reader, d: int) -> Subset:
        """The inverse of `write`."""
        size, seed = reader.varint(), read_seed(reader)
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

    def parts(self) -> list[bytes]:
        return [*self.outer.parts(), *self.inner.parts()]

    @property
    def shared_bytes(self) -> bytes:
        return self.outer.shared_bytes

    def keep(self, which: Tensor) -> Positions:
        return Nested(self.outer, IndexSet(self.inner.d, self.inner.index[which]))

    @classmethod
    def read(cls, reader: Reader, d: int) -> Nested:
        """The inverse of `write`."""
        outer = Subset.read(reader, d)
        return cls(outer, IndexSet.read(reader, outer.size))


@dataclass(frozen=True)
class Share(Positions):
    """Part number `part` of the `count` that a random permutation, drawn from a 64-bit seed, deals the d places out to.

    Place number p of the permutation goes to part p mod `count`, so sizes differ by one at most.
    """

    tag: ClassVar[int] = 4
    d: int
    count: int
    part: int
    seed: int

    @property
    def n(self) -> int:
        return (self.d - self.part - 1) // self.count + 1

    def indices(self) -> Tensor:
        return self._dealt.long()

    def narrow_indices(self) -> Tensor:
        return self._dealt

    @kept
    def _dealt(self) -> Tensor:
        return dealt(Key(self.seed), self.d, self.count, self.part, narrow(self.d))

    @property
    def nbytes(self) -> int:
        return varint_nbytes(self.count) + varint_nbytes(self.part) + 8

    def parts(self) -> list[bytes]:
        return [pack_varint(self.count), pack_varint(self.part), *seed_parts(self.seed)]

    @property
    def shared_bytes(self) -> bytes:
        return seed_parts(self.seed)[1]

    def keep(self, which: Tensor) -> Positions:
        return IndexSet(self.d, taken(self._dealt, which))

    @classmethod
    def read(cls, reader: Reader, d: int) -> Share:
        """The inverse of `write`."""
        parts, part, seed = reader.varint(), reader.varint(), read_seed(reader)
        if not part < parts <= d:
            raise WireError(f"the message announces part {part} of {parts} of a vector of {d} entries")
        return cls(d, parts, part, seed)
