"""The contract of positions."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from telegrad.context import Context
from telegrad.wire.bits import Reader
from telegrad.wire.kinds import Packed

__all__ = ["Positions"]


class Positions(Packed):
    """The `n` places among 0 … d−1, in increasing order, that a term's values belong to."""

    d: int

    @abstractmethod
    def indices(self) -> Tensor | None:
        """The places as int64, shape (n,), increasing; None stands for all of 0 … d−1."""

    def narrow_indices(self) -> Tensor | None:
        """`indices()` as `kernels.scatter.add_at` takes them: `narrow` where that is less work."""
        return self.indices()

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """The length of `write()`; all of it counts as index bits."""

    @abstractmethod
    def keep(self, which: Tensor) -> Positions:
        """Only the places number `which` (increasing int64) of these."""

    def within(self, context: Context) -> Positions:
        """These, where they count on the last estimate, with that of the context."""
        return self

    @classmethod
    @abstractmethod
    def read(cls, reader: Reader, d: int) -> Positions:
        """The inverse of `write`, for a vector of d entries. Raises `WireError`."""
