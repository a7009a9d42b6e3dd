"""Places by their ranks in an order that all ranks know."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from telegrad.context import Context, LastEstimate
from telegrad.errors import WireError
from telegrad.kernels.coding.scatter import taken
from telegrad.kernels.reference import descending_order
from telegrad.kernels.threads import kept
from telegrad.wire.bits import Reader, pack_varint, varint_nbytes
from telegrad.wire.positions.base import Positions
from telegrad.wire.positions.listed import IndexSet

__all__ = ["Ranked", "last_order"]


def last_order(last: LastEstimate) -> Tensor:
    """The entries of the last estimate by decreasing magnitude, int64, shape (d,); ties by index. Sorted once."""
    return last.once("order", descending_order)


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

    @kept
    def _indices(self) -> Tensor:
        if not self.shared:
            return torch.arange(self.start, self.start + self.size)
        if self.order is None:
            raise WireError("the message counts on the last estimate's order: decode code.within(context) instead")
        return self.order[self.start : self.start + self.size].sort().values

    @property
    def nbytes(self) -> int:
        return varint_nbytes(self.start) + varint_nbytes(self.size << 1)

    def parts(self) -> list[bytes]:
        return [pack_varint(self.start), pack_varint(self.size << 1 | self.shared)]

    def keep(self, which: Tensor) -> Positions:
        return self if len(which) == self.size else IndexSet(self.d, taken(self.indices(), which))

    def within(self, context: Context) -> Positions:
        last = context.last_estimate
        if not self.shared or last is None:
            return self
        if len(last.vector) != self.d:
            raise WireError(f"an estimate of {len(last.vector)} entries orders none of a message of {self.d}")
        return replace(self, order=last_order(last))

    @classmethod
    def read(cls, reader: Reader, d: int) -> Ranked:
        """The inverse of `write`."""
        start, both = reader.varint(), reader.varint()
        if start + (both >> 1) > d:
            raise WireError(f"the message announces {both >> 1} places from rank {start} on, of {d}")
        return cls(d, start, both >> 1, bool(both & 1))
