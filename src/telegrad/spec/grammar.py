"""The grammar: spec strings read into objects, and what is said of those that cannot be read."""

from __future__ import annotations

import ast
import difflib
import math
import typing
from typing import Any, Literal

from telegrad.errors import SpecError
from telegrad.spec.registered import WORDS, Registered, fields_in_order, needed, options_of, word, writable
from telegrad.spec.registry import implied_by, known_by_kind, load, names, registered

__all__ = ["build"]


def build(spec: Any, kind: str) -> Any:
    """The object of `kind` that a spec string describes; an object of that kind is returned as it is. Where a method is
    wanted, a compressor C stands for sgd(C).

    Raises `SpecError`, which names the culprit, the nearest valid name and an example.
    """
    load()
    if isinstance(spec, Registered):
        if spec.kind != kind and kind in implied_by and spec.kind == implied_by[kind][0]:
            return implied_by[kind][1](spec)
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
    plain = known.get(_PLAIN.get(kind, ""), next(iter(known.values()), None))
    return plain.example if plain else kind


_PLAIN = {"method": "sgd", "topology": "server", "workload": "digits"}
"""What a message shows where nothing is near to what was written."""


def _build_node(node: ast.AST, kind: str, spec: str) -> Any:
    call = node if isinstance(node, ast.Call) else None
    head = call.func if call else node
    if not isinstance(head, ast.Name):
        raise SpecError(f"`{ast.unparse(node)}` in `{spec}` is not a {kind}; write for example `{_any_example(kind)}`")
    cls = registered(kind).get(head.id)
    if cls is None and kind in implied_by and head.id in registered(implied_by[kind][0]):
        part, around = implied_by[kind]
        return around(_build_node(node, part, spec))
    if cls is None:
        raise SpecError(_no_such(head.id, kind))
    hints = _hints(cls)
    fields = {word(field): field for field in fields_in_order(cls) if field.init}
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
    missing = [name for name, field in fields.items() if name not in given and needed(field)]
    if missing:
        raise SpecError(f"{cls.spec_name} needs {', '.join(missing)}; for example `{cls.example}`")
    values = {
        fields[word].name: _convert(
            value, hints[fields[word].name], f"{cls.spec_name}({word}={ast.unparse(value)})", spec, cls.example
        )
        for word, value in given.items()
    }
    return cls(**values)


def _hints(cls: type[Registered]) -> dict[str, Any]:
    """The types of a class's fields. Raises `SpecError` where they cannot be looked up from its file."""
    try:
        return typing.get_type_hints(cls)
    except NameError as error:
        raise SpecError(
            f"{cls.spec_name}: the types of {cls.__qualname__}'s fields cannot be read, {error}; import it at the top "
            "of its file, not within a function or under TYPE_CHECKING"
        ) from None


def _no_such(name: str, kind: str) -> str:
    """Why nothing of `kind` is called `name`: it is something else, or it is misspelt."""
    example = f"for example `{_example_like(name, kind)}`"
    for other in known_by_kind:
        if name in known_by_kind[other] and other != kind:
            built = f"; build it with tg.{other}(…)" if {other, kind} == {"compressor", "method"} else ""
            also = " (mlmc(…) makes a compressor of it)" if (other, kind) == ("ladder", "compressor") else ""
            return f"{name!r} is a {other}, and a {kind} is wanted here{built}{also}; {example}"
    unknown = _unknown(f"{kind} {name!r}", name, names(kind))
    part = implied_by[kind][0] if kind in implied_by else ""
    near = _nearest(name, names(part)) if part and not _nearest(name, names(kind)) else ""
    if near:
        example = f"for example `{registered(part)[near].example}`"
        unknown = f"unknown {kind} {name!r}; did you mean the {part} {near!r}?"
    return f"{unknown}; {example}"


def _example_like(name: str, kind: str) -> str:
    close = _nearest(name, names(kind))
    return registered(kind)[close].example if close else _any_example(kind)


def _nearest(name: str, valid: list[str]) -> str:
    """The valid name that this one is a misspelling of, whatever its capitals; empty where none is near."""
    lower = {one.lower(): one for one in valid}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return lower[close[0]] if close else ""


def _unknown(what: str, name: str, valid: list[str]) -> str:
    close = _nearest(name, valid)
    hint = f"did you mean {close!r}?" if close else f"valid: {', '.join(valid) or 'none'}"
    return f"unknown {what}; {hint}"


def _convert(node: ast.AST, hint: Any, where: str, spec: str, example: str) -> Any:
    options = options_of(hint)
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
    if not any(map(writable, options)):
        raise SpecError(
            f"{where}: a spec cannot write {hint}; an argument is an int, float, bool, str, tuple or Literal, or of a "
            f"registered kind, such as tg.Compressor; for example `{example}`"
        )
    wanted = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise SpecError(f"{where}: {wanted} is wanted; for example `{example}`")


def _is_none(node: ast.AST) -> bool:
    word = node.id if isinstance(node, ast.Name) else node.value if isinstance(node, ast.Constant) else ""
    return word in ("none", None)


def _literal(node: ast.AST, where: str, example: str) -> Any:
    if isinstance(node, ast.Name):
        return WORDS.get(node.id, node.id)
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        raise SpecError(f"{where}: a number or a word is wanted; for example `{example}`") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{where}: the number must be finite; for example `{example}`")
    return value
