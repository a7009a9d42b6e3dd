"""Classes from outside telegrad: what they define themselves is looked at when it is called; telegrad's own are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["from_outside", "wrap_own"]


def from_outside(cls: type) -> bool:
    """Whether the class is none of telegrad's own."""
    return not cls.__module__.startswith("telegrad.")


def wrap_own(cls: type, wrappers: Mapping[str, Callable[[Any], Any]]) -> None:
    """Replace the functions that a class from outside telegrad defines itself by what the wrappers make of them."""
    if from_outside(cls):
        for name, wrapper in wrappers.items():
            if name in vars(cls):
                setattr(cls, name, wrapper(vars(cls)[name]))
