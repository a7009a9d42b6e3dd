"""All places."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import ClassVar

from torch import Tensor

from telegrad.wire.bits import Reader
from telegrad.wire.positions.base import Positions
from telegrad.wire.positions.listed import IndexSet

__all__ = ["All"]


@dataclass(frozen=True)
class All(Positions):
    """Every entry; nothing is sent."""

    tag: ClassVar[int] = 0
    d: int

    n = property(attrgetter("d"))  # no step in Python

    def indices(self) -> Tensor | None:
        return None

    @property
    def nbytes(self) -> int:
        return 0

    def parts(self) -> list[bytes]:
        return []

    def keep(self, which: Tensor) -> Positions:
        return IndexSet(self.d, which)

    @classmethod
    def read(cls, reader: Reader, d: int) -> All:
        """The inverse of `write`."""
        return cls(d)
