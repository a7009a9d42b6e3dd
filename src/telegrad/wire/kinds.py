"""What a message is made of: tables of what a byte may name, and what is packed in pieces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

from telegrad.errors import WireError

__all__ = ["Kinds", "Packed"]

Kind = TypeVar("Kind")


class Kinds(dict[int, Kind]):
    """Classes by their `tag`, the number that stands for them in a message; another number raises `WireError`.

    `what`: what they are, for the error.
    """

    def __init__(self, what: str, classes: Iterable[Any]) -> None:
        super().__init__({cls.tag: cls for cls in classes})
        self.what = what

    def __missing__(self, tag: int) -> Kind:
        raise WireError(f"unknown kind of {self.what} {tag} in the message")


class Packed(ABC):
    """A part of a message that knows its bytes by itself. `tag`: the number of its kind."""

    tag: ClassVar[int]

    @property
    @abstractmethod
    def n(self) -> int:
        """How many places or numbers these are."""

    def write(self) -> bytes:
        """The bytes; what stands elsewhere in the message is known from there."""
        return b"".join(self.parts())

    @abstractmethod
    def parts(self) -> list[bytes]:
        """`write()` in pieces, those that the messages of a parcel share marked as `Shared`."""

    @property
    def shared_bytes(self) -> bytes:
        """The `Shared` ones of `parts()`, joined."""
        return b""
