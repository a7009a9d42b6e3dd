"""The contract of positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from telegrad.context import Context
from telegrad.wire.bits import Reader

__all__ = ["Positions"]


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

    def narrow_indices(self) -> Tensor | None:
        """`indices()` as `kernels.scatter.add_at` takes them: `narrow` where that is less work."""
        return self.indices()

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """The length of `write()`; all of it counts as index bits."""

    def write(self) -> bytes:
        """The packed places; d itself is known from the message's header."""
        return b"".join(self.parts())

    @abstractmethod
    def parts(self) -> list[bytes]:
        """`write()` in pieces, those that the messages of a parcel share marked as `Shared`."""

    @property
    def shared_bytes(self) -> bytes:
        """The `Shared` ones of `parts()`, joined."""
        return b""

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
