"""Statements of theory as functions: what each says of which method, in which units, and where it comes from."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from telegrad.errors import ConfigError
from telegrad.theory.constants import CONSTANTS, check_constants

__all__ = ["Kind", "Statement", "Value", "evaluate", "stated_methods", "statement", "statements_of"]

Kind = Literal["step size", "bound", "bits"]
Value = float | Mapping[str, float]

_statements: list[Statement] = []


@dataclass(frozen=True)
class Statement:
    """One statement about a method, and the function that computes its number.

    `case`: what is assumed, in words. `text`: the formula, the first line of the function's docstring. `unit`: of the
    result. `source`: the number in the project's algorithm reference, and the paper. `lr`: the name of the statement's
    step size in the same method, for a bound that holds at it.
    """

    method: str
    kind: Kind
    case: str
    unit: str
    source: str
    function: Callable[..., Value]
    step: Callable[..., Value] | None = None

    @property
    def text(self) -> str:
        """The formula."""
        return (inspect.getdoc(self.function) or "").split("\n\n")[0].replace("\n", " ")

    @property
    def wants(self) -> dict[str, bool]:
        """The constants that the function takes, and whether each must be given."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default is inspect.Parameter.empty for p in parameters}


def statement(
    method: str, kind: Kind, case: str, unit: str, source: str, step: Callable[..., Value] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the function, whose keyword arguments are constants, becomes a statement about `method`.

    Its arguments are checked: `ConfigError` says which constant is out of range and what is allowed.
    """

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def checked(**constants: float) -> Any:
            check_constants(**{name: value for name, value in constants.items() if name in CONSTANTS})
            try:
                value = function(**constants)
            except (ZeroDivisionError, OverflowError):
                value = math.nan
            if any(math.isnan(number) for number in _numbers(value)):
                given = ", ".join(f"{name}={number:g}" for name, number in constants.items())
                raise ConfigError(f"{given}: too large or too small together to compute with in float64")
            return value

        one = Statement(method, kind, case, unit, source, checked, step)
        checked.__doc__ = f"{one.text}\n\n{_explanation(one)}"
        _statements.append(one)
        return checked

    return add


def _numbers(value: Value) -> list[float]:
    return list(value.values()) if isinstance(value, Mapping) else [value]


def _explanation(one: Statement) -> str:
    """What `help` tells of a statement beyond its formula: case, unit, constants, errors and source."""
    unit = "A number without a unit" if one.unit == "1" else f"In units of {one.unit}"
    what = f"{one.kind.capitalize()} of `{one.method}`: {one.case}. {unit}."
    constants = [
        f"    {name}: {CONSTANTS[name].symbol}, {CONSTANTS[name].meaning} ({CONSTANTS[name].unit})"
        for name in one.wants
    ]
    errors = "Raises `ConfigError` for a constant out of its range, and for a step size that the bound does not cover."
    return "\n".join([what, "", "Constants:", *constants, "", errors, f"Source: {one.source}."])


def stated_methods() -> list[str]:
    """The methods that something is stated about, in alphabetical order."""
    _load()
    return sorted({one.method for one in _statements})


def statements_of(method: str) -> list[Statement]:
    """All statements about a method: step sizes, then bounds, then bits. Raises `ConfigError` for an unknown one."""
    _load()
    found = [one for one in _statements if one.method == method]
    if not found:
        close = get_close_matches(method, stated_methods(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(stated_methods())}"
        raise ConfigError(f"no theory of a method {method!r}; {hint}")
    order = ("step size", "bound", "bits")
    return sorted(found, key=lambda one: order.index(one.kind))


def _load() -> None:
    from telegrad.theory import bounds, step_sizes, traffic  # noqa: F401


def evaluate(one: Statement, constants: Mapping[str, float]) -> tuple[Value | None, list[str], list[str]]:
    """The statement's number; what is missing for it; and what was assumed.

    A constant that is not given is taken from the one that it equals where workers are alike, or from the function's
    default; a bound's step size is the theory's own. The number is None where something is missing.
    """
    given = dict(constants)
    missing, assumed = [], []
    for name, needed in one.wants.items():
        if name in given:
            continue
        like = CONSTANTS[name].like
        if name == "lr" and one.step is not None:
            value, lacking, _ = evaluate(_statement_of(one.step), constants)
            missing += lacking
            if value is not None:
                given[name] = value if isinstance(value, float) else value["lr"]
                assumed.append(f"lr={given[name]:.6g}")
        elif needed and like is not None and like in given:
            given[name] = given[like]
            assumed.append(f"{name}={like}")
        elif needed:
            missing.append(name)
    if missing:
        return None, list(dict.fromkeys(missing)), assumed
    return one.function(**{name: given[name] for name in one.wants if name in given}), [], assumed


def _statement_of(function: Callable[..., Value]) -> Statement:
    return next(one for one in _statements if one.function is function)
