"""Tables of what a byte of a message may name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from telegrad.errors import WireError

__all__ = ["Kinds"]

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
