"""The registry: every class that a spec can name, by its kind and its name."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from keyword import iskeyword
from typing import Any, TypeVar

from telegrad.errors import SpecError
from telegrad.spec.outside import from_outside
from telegrad.spec.registered import WORDS, Registered

__all__ = ["implied", "implied_by", "known_by_kind", "load", "names", "register", "registered"]

known_by_kind: dict[str, dict[str, type[Registered]]] = {}
"""The classes by kind and name, as far as their modules were imported."""
_T = TypeVar("_T", bound=type[Registered])

_PACKAGES = ("compressors", "mlmc", "portfolio", "methods", "runtime.topologies", "workloads")
"""The modules whose classes register themselves when they are imported."""

_loading = threading.RLock()
_state = "empty"


def load() -> None:
    """Import what registers telegrad's own classes, when one is first asked for: `import telegrad` waits for none."""
    global _state
    if _state == "full":
        return
    with _loading:  # other threads wait; what this one imports may come back here, and goes on
        if _state == "empty":
            _state = "loading"
            try:
                for package in _PACKAGES:
                    importlib.import_module(f"telegrad.{package}")
            except BaseException:
                _state = "empty"
                raise
            _state = "full"


def register(name: str, *, example: str, source: str) -> Callable[[_T], _T]:
    """A class decorator: specs find the class by its name.

    Args:
        name: what specs call it, a word; each is free once among compressors, ladders, methods, topologies, workloads.
        example: a spec that works, for messages and the catalogue.
        source: where it comes from: authors, venue, year.

    Returns:
        The decorator. The class is a frozen dataclass below `tg.Compressor`, `tg.Ladder`, `tg.Method` or
        `tg.Topology`. The same class defined anew, as by a notebook's cell that runs again, takes its own place.

    Raises:
        SpecError: the name is taken or no word, or the class is no such class.

    Example:
        >>> decorator = tg.register("my_rounding", example="my_rounding(step=0.1)", source="our lab, 2026")
    """

    if not isinstance(name, str) or not name.isidentifier() or iskeyword(name) or name in WORDS:
        raise SpecError(f"register({name!r}): a word that a spec can name is allowed, such as my_rounding")
    for argument, given in (("example", example), ("source", source)):
        if not isinstance(given, str):
            raise SpecError(f"register({name!r}, {argument}={given!r}): a string is allowed, such as {name!r}")

    def add(cls: _T) -> _T:
        if not (isinstance(cls, type) and issubclass(cls, Registered) and hasattr(cls, "kind")):
            raise SpecError(
                f"register({name!r}) was given {cls!r}: a class below tg.Unbiased, tg.Contractive, tg.Compressor, "
                "tg.Ladder, tg.Method or tg.Topology is allowed"
            )
        if from_outside(cls):
            load()  # or a name of telegrad's own would seem free
        known = known_by_kind.setdefault(cls.kind, {})
        if name in known and not _anew(known[name], cls):
            raise SpecError(
                f"the {cls.kind} {name!r} is registered twice: {known[name]} and {cls}; give one another name"
            )
        if not getattr(vars(cls).get("__dataclass_params__"), "frozen", False):
            raise SpecError(
                f"register({name!r}): {cls.__name__} is no frozen dataclass; write @dataclass(frozen=True) on the line "
                "between @register and the class"
            )
        if hasattr(cls, "within") and "context" in getattr(cls, "__dataclass_fields__", ()):
            raise SpecError(f"register({name!r}): a field of {cls.__name__} is called context; give it another name")
        known[name] = cls
        cls.spec_name, cls.example, cls.source = name, example, source
        return cls

    return add


def _anew(known: type[Registered], cls: type[Registered]) -> bool:
    """Whether one line of a program made both, and not within a function, which may make several."""

    def line(one: Any) -> tuple[str, str]:
        return one.__module__, one.__qualname__

    return known is not cls and line(known) == line(cls) and "<locals>" not in cls.__qualname__


implied_by: dict[str, tuple[str, Callable[..., Registered]]] = {}
"""By kind, the kind that stands for it, and what makes the one of the other."""


def implied(kind: str, part: str) -> Callable[[_T], _T]:
    """Class decorator: where a `kind` is wanted, what is a `part` stands for this class around it."""

    def add(cls: _T) -> _T:
        implied_by[kind] = (part, cls)
        return cls

    return add


def registered(kind: str) -> dict[str, type[Registered]]:
    """All classes of a kind by name, in alphabetical order."""
    load()
    return dict(sorted(known_by_kind.get(kind, {}).items()))


def names(kind: str) -> list[str]:
    """The valid names of a kind."""
    return list(registered(kind))
