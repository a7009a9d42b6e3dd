"""The grammar of specs and the registry of what they name.

A spec is a name with arguments in parentheses, which may be specs again: `mlmc(stopk(s=0.01, values=sign))`. The
grammar is that of Python calls; words need no quotes. A class takes part by being a frozen dataclass below a base
class with a `kind` and by the decorator `@register`.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import math
import numbers
import threading
import types
import typing
from collections.abc import Callable
from functools import cache, wraps
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from telegrad.errors import SpecError

if TYPE_CHECKING:
    pass

__all__ = [
    "Amount",
    "Registered",
    "build",
    "check_amount",
    "check_that",
    "fields_in_order",
    "implied",
    "names",
    "register",
    "registered",
    "resolve_amount",
]

Amount = int | float
"""A number of entries: a float up to 1 is a fraction of d, an integer is a count."""


class Registered:
    """Base of everything a spec can name. Subclasses are frozen dataclasses; `str()` gives the shortest spec."""

    kind: ClassVar[str]
    spec_name: ClassVar[str]
    example: ClassVar[str]
    source: ClassVar[str]

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
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
                parts.append(f"{_word(field)}={_text(value)}")
        return f"{self.spec_name}({', '.join(parts)})" if parts else self.spec_name


@cache
def _hints(cls: type[Registered]) -> dict[str, tuple[Any, ...]]:
    """What each field of a class may be; without the fields whose types no spec can write."""
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # a class within a function
        return {}
    options = {field.name: _options(hints[field.name]) for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return {name: option for name, option in options.items() if all(map(_writable, option))}


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _writable(option: Any) -> bool:
    plain = option in (int, float, bool, str, tuple, types.NoneType) or typing.get_origin(option) is Literal
    return plain or (isinstance(option, type) and issubclass(option, Registered))


def _check_types(owner: Registered) -> None:
    """Hold a new object's arguments to the types of its fields; numpy's numbers become Python's. Raises `SpecError`."""
    cls: Any = type(owner)
    for name, options in _hints(cls).items():
        value = getattr(owner, name)
        if type(value) in options:
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
    return float(value) if float in options else _WRONG


def _wrong(owner: Any, name: str, value: Any, options: tuple[Any, ...]) -> str:
    cls = type(owner)
    example = f"; for example `{cls.example}`" if hasattr(cls, "example") else ""
    shown = f"{getattr(cls, 'spec_name', cls.__name__)}({name}={value!r})"
    parts = [option.kind for option in options if isinstance(option, type) and issubclass(option, Registered)]
    if parts and isinstance(value, str):
        return f"{shown}: a {parts[0]} is wanted, not its spec; build it with tg.{parts[0]}({value!r})"
    wanted = [
        " or ".join(map(str, typing.get_args(option))) if typing.get_origin(option) is Literal else _called(option)
        for option in options
    ]
    return f"{shown}: {' or '.join(wanted)} is wanted{example}"


def _called(option: Any) -> str:
    if option is types.NoneType:
        return "None"
    return f"a {option.kind}" if issubclass(option, Registered) else str(option.__name__)


_registry: dict[str, dict[str, type[Registered]]] = {}
_T = TypeVar("_T", bound=type[Registered])

_ROOMS = ("compressors", "mlmc", "portfolio", "methods", "runtime.topologies", "workloads")
"""The modules whose classes register themselves when they are imported."""

_loading = threading.RLock()
_state = "empty"


def _load() -> None:
    """Import what registers telegrad's own classes, when one is first asked for: `import telegrad` waits for none."""
    global _state
    if _state == "full":
        return
    with _loading:  # other threads wait; what this one imports may come back here, and goes on
        if _state == "empty":
            _state = "loading"
            try:
                for room in _ROOMS:
                    importlib.import_module(f"telegrad.{room}")
            except BaseException:
                _state = "empty"
                raise
            _state = "full"


def register(name: str, *, example: str, source: str) -> Callable[[_T], _T]:
    """A class decorator: specs find the class by its name.

    Args:
        name: what specs call it; each name is free once among compressors, ladders, methods, topologies, workloads.
        example: a spec that works, for messages and the catalogue.
        source: where it comes from: authors, venue, year.

    Returns:
        The decorator. The class is a frozen dataclass below `tg.Compressor`, `tg.Ladder`, `tg.Method` or
        `tg.Topology`.

    Raises:
        SpecError: the name is taken.

    Example:
        >>> decorator = tg.register("my_rounding", example="my_rounding(step=0.1)", source="our lab, 2026")
    """

    def add(cls: _T) -> _T:
        if not cls.__module__.startswith("telegrad."):
            _load()  # or a name of telegrad's own would seem free
        known = _registry.setdefault(cls.kind, {})
        if name in known:
            raise SpecError(f"the {cls.kind} {name!r} is registered twice: {known[name]} and {cls}")
        known[name] = cls
        cls.spec_name, cls.example, cls.source = name, example, source
        return cls

    return add


_implied: dict[str, tuple[str, Callable[..., Registered]]] = {}


def implied(kind: str, part: str) -> Callable[[_T], _T]:
    """Class decorator: where a `kind` is wanted, what is a `part` stands for this class around it."""

    def add(cls: _T) -> _T:
        _implied[kind] = (part, cls)
        return cls

    return add


def registered(kind: str) -> dict[str, type[Registered]]:
    """All classes of a kind by name, in alphabetical order."""
    _load()
    return dict(sorted(_registry.get(kind, {}).items()))


def names(kind: str) -> list[str]:
    """The valid names of a kind."""
    return list(registered(kind))


def build(spec: Any, kind: str) -> Any:
    """The object of `kind` that a spec string describes; an object of that kind is returned as it is. Where a method is
    wanted, a compressor C stands for sgd(C).

    Raises `SpecError`, which names the culprit, the nearest valid name and an example.
    """
    _load()
    if isinstance(spec, Registered):
        if spec.kind != kind and kind in _implied and spec.kind == _implied[kind][0]:
            return _implied[kind][1](spec)
        if spec.kind != kind:
            raise SpecError(f"`{spec}` is a {spec.kind}; a {kind} is wanted here, for example `{_any_example(kind)}`")
        return spec
    if not isinstance(spec, str):
        raise SpecError(f"a {kind} is given by a spec string such as `{_any_example(kind)}`, not by {spec!r}")
    try:
        tree = ast.parse(spec.strip(), mode="eval").body
        ast.unparse(tree)  # what cannot be printed, by its depth or a number's length, cannot be explained below
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise SpecError(f"cannot read the spec `{spec}`; write for example `{_any_example(kind)}`") from None
    return _build_node(tree, kind, spec)


def _any_example(kind: str) -> str:
    known = registered(kind)
    return next(iter(known.values())).example if known else kind


def _build_node(node: ast.AST, kind: str, spec: str) -> Any:
    call = node if isinstance(node, ast.Call) else None
    head = call.func if call else node
    if not isinstance(head, ast.Name):
        raise SpecError(f"`{ast.unparse(node)}` in `{spec}` is not a {kind}; write for example `{_any_example(kind)}`")
    cls = registered(kind).get(head.id)
    if cls is None and kind in _implied and head.id in registered(_implied[kind][0]):
        part, around = _implied[kind]
        return around(_build_node(node, part, spec))
    if cls is None:
        raise SpecError(_no_such(head.id, kind))
    hints = typing.get_type_hints(cls)
    fields = {_word(field): field for field in fields_in_order(cls) if field.init}
    given: dict[str, ast.AST] = {}
    positional = call.args if call else []
    places = [word for word, field in fields.items() if not field.kw_only]
    if len(positional) > len(places):
        raise SpecError(
            f"`{ast.unparse(node)}`: {cls.spec_name} takes {len(places)} arguments, for example `{cls.example}`"
        )
    given.update(zip(places, positional, strict=False))
    for keyword in call.keywords if call else []:
        if keyword.arg not in fields:
            raise SpecError(
                _unknown(f"argument {keyword.arg or '**'!r} of {cls.spec_name}", keyword.arg or "**", list(fields))
                + f"; for example `{cls.example}`"
            )
        if keyword.arg in given:
            raise SpecError(f"`{ast.unparse(node)}` gives {keyword.arg!r} twice; for example `{cls.example}`")
        given[keyword.arg] = keyword.value
    missing = [name for name, field in fields.items() if name not in given and field.default is dataclasses.MISSING]
    if missing:
        raise SpecError(f"{cls.spec_name} needs {', '.join(missing)}; for example `{cls.example}`")
    values = {
        fields[word].name: _convert(
            value, hints[fields[word].name], f"{cls.spec_name}({word}={ast.unparse(value)})", spec, cls.example
        )
        for word, value in given.items()
    }
    return cls(**values)


def _no_such(name: str, kind: str) -> str:
    """Why nothing of `kind` is called `name`: it is something else, or it is misspelt."""
    example = f"for example `{_example_like(name, kind)}`"
    for other in _registry:
        if name in _registry[other] and other != kind:
            built = f"; build it with tg.{other}(…)" if {other, kind} == {"compressor", "method"} else ""
            also = " (mlmc(…) makes a compressor of it)" if (other, kind) == ("ladder", "compressor") else ""
            return f"{name!r} is a {other}, and a {kind} is wanted here{built}{also}; {example}"
    unknown = _unknown(f"{kind} {name!r}", name, names(kind))
    if kind in _implied and (near := difflib.get_close_matches(name, names(_implied[kind][0]), n=1)):
        unknown = f"unknown {kind} {name!r}; did you mean the {_implied[kind][0]} {near[0]!r}?"
    return f"{unknown}; {example}"


def fields_in_order(cls: type[Registered]) -> list[dataclasses.Field[Any]]:
    """The fields in the order in which a spec names them: those without a place last."""
    return sorted(dataclasses.fields(cls), key=lambda field: bool(field.kw_only))  # type: ignore[arg-type]


def _word(field: dataclasses.Field[Any]) -> str:
    """What a spec calls a field: its name, unless the field's metadata give another ("spec")."""
    return str(field.metadata.get("spec", field.name))


def _example_like(name: str, kind: str) -> str:
    close = difflib.get_close_matches(name, names(kind), n=1)
    return registered(kind)[close[0]].example if close else _any_example(kind)


def _unknown(what: str, name: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(valid) or 'none'}"
    return f"unknown {what}; {hint}"


def _convert(node: ast.AST, hint: Any, where: str, spec: str, example: str) -> Any:
    options = _options(hint)
    if type(None) in options and _is_none(node):
        return None
    for option in options:
        if isinstance(option, type) and issubclass(option, Registered):
            return _build_node(node, option.kind, spec)
    value = _literal(node, where, example)
    for option in options:
        if typing.get_origin(option) is Literal:
            choices = typing.get_args(option)
            if value in choices:
                return value
            raise SpecError(f"{where}: allowed are {', '.join(map(str, choices))}; for example `{example}`")
        if option is type(None) and value is None:
            return None
        if option is float and type(value) is int and int not in options:
            return float(value)
        if isinstance(option, type) and type(value) is option:
            return value
    wanted = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise SpecError(f"{where}: {wanted} is wanted; for example `{example}`")


def _is_none(node: ast.AST) -> bool:
    word = node.id if isinstance(node, ast.Name) else node.value if isinstance(node, ast.Constant) else ""
    return word in ("none", None)


_WORDS = {"true": True, "false": False, "none": None}


def _text(value: Any) -> str:
    """How a value is written in a spec: a string that is no word of the grammar in quotes."""
    plain = not isinstance(value, str) or (value.isidentifier() and not iskeyword(value))
    return str(value) if plain and value not in _WORDS else repr(value)


def _literal(node: ast.AST, where: str, example: str) -> Any:
    if isinstance(node, ast.Name):
        return _WORDS.get(node.id, node.id)
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        raise SpecError(f"{where}: a number or a word is wanted; for example `{example}`") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{where}: the number must be finite; for example `{example}`")
    return value


def check_that(condition: bool, owner: Registered, name: str, allowed: str) -> None:
    """Raise `SpecError` for argument `name` of `owner` unless `condition`; `allowed` says what would be right."""
    if not condition:
        cls = type(owner)
        raise SpecError(f"{cls.spec_name}({name}={getattr(owner, name)}): {allowed}; for example `{cls.example}`")


def check_amount(owner: Registered, *names: str) -> None:
    """Refuse `Amount` arguments that are neither a positive count nor a fraction in (0, 1], nor None."""
    for name in names:
        value = getattr(owner, name)
        fits = value is None or (value >= 1 if isinstance(value, int) else 0.0 < value <= 1.0)
        check_that(fits, owner, name, "a count (an integer from 1) or a fraction of d (a float in (0, 1]) is allowed")


def resolve_amount(owner: Registered, name: str, d: int) -> int:
    """The number of entries an `Amount` argument means for a vector of d: a fraction is rounded, and is at least one
    entry.

    Raises `SpecError` where a count exceeds d.
    """
    value = getattr(owner, name)
    if isinstance(value, float):
        return min(d, max(1, round(value * d)))
    if value > d:
        cls = type(owner)
        raise SpecError(
            f"{cls.spec_name}({name}={value}) exceeds the d = {d} entries of the vector; "
            f"write a count up to {d}, or a fraction such as {name}=0.01"
        )
    return value
