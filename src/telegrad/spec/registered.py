"""The base of everything that a spec can name: its arguments are held to their types, and it is written as a spec."""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
import typing
from functools import cache, wraps
from keyword import iskeyword
from typing import Any, ClassVar, Literal

from telegrad.errors import SpecError

__all__ = ["WORDS", "Registered", "fields_in_order", "hints_of", "needed", "options_of", "word", "writable"]


class Registered:
    """Base of everything a spec can name. Subclasses are frozen dataclasses; `str()` gives the shortest spec."""

    kind: ClassVar[str]
    spec_name: ClassVar[str]
    example: ClassVar[str]
    source: ClassVar[str]

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if "spec_name" not in cls.__dict__:  # until it is registered, by its own name and not by its base's
            cls.spec_name, cls.example, cls.source = cls.__name__, cls.__name__, "not registered"
        if "__eq__" not in cls.__dict__:  # before a dataclass makes its own, to which 1 and 1.0 are the same
            cls.__eq__ = _equal  # type: ignore[method-assign]
        # Before a class looks at its arguments' values, they are of the types that a spec string would give them.
        if own := cls.__dict__.get("__post_init__"):

            @wraps(own)
            def checked(self: Any) -> None:
                _check_types(self)
                own(self)

            cls.__post_init__ = checked  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        _check_types(self)

    def __str__(self) -> str:
        parts = []
        for field in fields_in_order(type(self)):
            value = getattr(self, field.name)
            if isinstance(value, Registered) and field.default is dataclasses.MISSING:
                parts.append(str(value))
            elif value != field.default:
                parts.append(f"{word(field)}={_text(value)}")
        return f"{self.spec_name}({', '.join(parts)})" if parts else self.spec_name


def _equal(self: Any, other: object) -> bool:
    """Whether both are of one class with the same arguments: a count of 1 is not the fraction 1.0."""
    if type(other) is not type(self):
        return NotImplemented
    for field in dataclasses.fields(type(self)):  # type: ignore[arg-type]
        if field.compare:
            own, its = getattr(self, field.name), getattr(other, field.name)
            if type(own) is not type(its) or own != its:
                return False
    return True


@cache
def hints_of(cls: type[Registered]) -> dict[str, tuple[Any, ...]]:
    """What each field of a class may be; without the fields whose types no spec can write."""
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # a class within a function
        return {}
    options = {field.name: options_of(hints[field.name]) for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return {name: option for name, option in options.items() if all(map(writable, option))}


def options_of(hint: Any) -> tuple[Any, ...]:
    """What a hint allows, one by one."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def writable(option: Any) -> bool:
    """Whether a spec can write a value of this type."""
    plain = option in (int, float, bool, str, tuple, types.NoneType) or typing.get_origin(option) is Literal
    return plain or (isinstance(option, type) and issubclass(option, Registered))


def _check_types(owner: Registered) -> None:
    """Hold a new object's arguments to the types of its fields; numpy's numbers become Python's. Raises `SpecError`."""
    cls: Any = type(owner)
    for name, options in hints_of(cls).items():
        value = getattr(owner, name)
        if type(value) in options and (type(value) is not float or math.isfinite(value)):
            continue
        exact = _exact(value, options)
        if exact is _WRONG:
            raise SpecError(_wrong(owner, name, value, options))
        if exact is not value:
            object.__setattr__(owner, name, exact)


_WRONG = object()


def _exact(value: Any, options: tuple[Any, ...]) -> Any:
    """`value` as one of the options, or `_WRONG`."""
    for option in options:
        if (option is types.NoneType and value is None) or (option is tuple and isinstance(value, list)):
            return value if value is None else tuple(value)
        if typing.get_origin(option) is Literal and isinstance(value, str | int) and value in typing.get_args(option):
            return value
        if isinstance(option, type) and issubclass(option, Registered) and isinstance(value, option):
            return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return _WRONG
    if int in options and isinstance(value, numbers.Integral):
        return int(value)
    if not math.isfinite(value):  # specs have a word for infinity where a class takes it
        word = str(float(value))
        return word if any(word in typing.get_args(option) for option in options) else _WRONG
    return float(value) if float in options else _WRONG


def _wrong(owner: Any, name: str, value: Any, options: tuple[Any, ...]) -> str:
    cls = type(owner)
    example = f"; for example `{cls.example}`"
    shown = f"{cls.spec_name}({name}={value!r})"
    parts = [option.kind for option in options if isinstance(option, type) and issubclass(option, Registered)]
    if parts and isinstance(value, str):
        return f"{shown}: a {parts[0]} is wanted, not its spec; build it with tg.{parts[0]}({value!r})"
    if isinstance(value, numbers.Real) and not math.isfinite(value):
        return f"{shown}: the number must be finite{example}"
    wanted = [
        " or ".join(map(str, typing.get_args(option))) if typing.get_origin(option) is Literal else _called(option)
        for option in options
    ]
    return f"{shown}: {' or '.join(wanted)} is wanted{example}"


def _called(option: Any) -> str:
    if option is types.NoneType:
        return "None"
    return f"a {option.kind}" if issubclass(option, Registered) else str(option.__name__)


def fields_in_order(cls: type[Registered]) -> list[dataclasses.Field[Any]]:
    """The fields in the order in which a spec names them: those without a place last."""
    return sorted(dataclasses.fields(cls), key=lambda field: bool(field.kw_only))  # type: ignore[arg-type]


def word(field: dataclasses.Field[Any]) -> str:
    """What a spec calls a field: its name, unless the field's metadata give another ("spec")."""
    return str(field.metadata.get("spec", field.name))


def needed(field: dataclasses.Field[Any]) -> bool:
    """Whether a spec has to give it."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


WORDS = {"true": True, "false": False, "none": None}


def _text(value: Any) -> str:
    """How a value is written in a spec: a string that is no word of the grammar in quotes."""
    plain = not isinstance(value, str) or (value.isidentifier() and not iskeyword(value) and value not in WORDS)
    return str(value) if plain else repr(value)
