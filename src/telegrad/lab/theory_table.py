"""What `telegrad theory` prints: every statement about a method, with numbers where the constants are known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.compressors.permk import PermK
from telegrad.errors import ConfigError, SpecError
from telegrad.lab.vectors import quantile_vector
from telegrad.random import Key
from telegrad.spec import Registered, build, fields_in_order, registered
from telegrad.theory.constants import CONSTANTS
from telegrad.theory.statements import Statement, Value, evaluate, stated_methods, statements_of
from telegrad.wire.message import pack

__all__ = ["Line", "constants_table", "lines", "method_and_constants", "methods_table", "theory_table"]


@dataclasses.dataclass(frozen=True)
class Line:
    """A statement and its number: `value` is None where `missing` constants were not given, or where `refused` says why
    the statement does not hold for them.
    """

    statement: Statement
    value: Value | None
    missing: tuple[str, ...]
    assumed: tuple[str, ...]
    refused: str = ""


def method_and_constants(spec: str, given: Mapping[str, float]) -> tuple[str, dict[str, float]]:
    """The name that theory has for the method, and the constants: those given, those that the method's own arguments
    tell (p, momentum, owners, …), and those that its compressor declares, where d is given: omega, alpha, eta, spread,
    and the bits of a message (for d normal quantiles). What is given counts where it differs.

    `spec` is a name such as `diana`, or a method's spec such as `sgd(randk(k=0.01))`. Raises `SpecError` for a biased
    compressor where theory is of unbiased ones.
    """
    constants = dict(given)
    name = spec.strip()
    if "(" not in name and (name in stated_methods() or name not in registered("method")):
        return name, constants
    method = build(spec, "method")
    compressor = _compressor_of(method)
    if compressor is not None and "d" not in constants:
        raise ConfigError(f"{spec}: its compressor's constants depend on d; add for example d=100000")
    name = _stated_name(method, compressor)
    wanted = {constant for one in statements_of(name) for constant in one.wants}
    if compressor is not None:
        declared = _declared(compressor, int(constants["d"]))
        if "omega" in wanted - {*declared, *constants}:
            raise SpecError(
                f"{spec}: {compressor} is biased, and theory of {name} is of unbiased compressors; those are for "
                f"example randk or mlmc(…), and biased ones go with ef21(…), ef_bv(…) or ef14(…)"
            )
        constants = declared | constants
    return name, _own_constants(method, wanted) | constants


def _compressor_of(method: Registered) -> Compressor | None:
    return next((value for value in _arguments(method).values() if isinstance(value, Compressor)), None)


def _arguments(method: Registered) -> dict[str, object]:
    return {field.name: getattr(method, field.name) for field in fields_in_order(type(method))}


def _own_constants(method: Registered, wanted: Container[str]) -> dict[str, float]:
    """The constants that are arguments of the method, by the names that theorems have for them."""
    other = {"probability": "p", "local_lr": "lr"}
    found = {other.get(name, name): value for name, value in _arguments(method).items()}
    return {name: v for name, v in found.items() if name in wanted and isinstance(v, (int, float)) and v is not True}


def _stated_name(method: Registered, compressor: Compressor | None) -> str:
    """The name under which something is stated about the method; it depends on its arguments for a few."""
    name = type(method).spec_name
    if name == "local_sgd" and not isinstance(compressor, Identity):
        return "mlmc_local"
    if name == "marina" and isinstance(compressor, PermK):
        return "marina_permk"
    if name == "signsgd":
        if getattr(method, "vote", None) == "majority" and not getattr(method, "momentum", 0.0):
            return "sign_majority"
        raise ConfigError(
            f"{method}: theory covers signsgd(vote=majority) without momentum, under the name sign_majority; where the "
            "mean of signs settles, telegrad.theory.stationary.sign_floor tells"
        )
    return name


def _declared(compressor: Compressor, d: int) -> dict[str, float]:
    try:
        found = {"eta": compressor.eta(d), "spread": compressor.spread(d), "alpha": compressor.alpha(d)}
    except SpecError as error:
        raise SpecError(f"{compressor}: {error}") from None
    if compressor.unbiased:
        found["omega"] = compressor.omega(d)
    x = quantile_vector("gauss", min(d, 10_000_000), Key(0))
    found["message_bits"] = 8.0 * len(pack(compressor.encode(x, Key(0)))) * (d / len(x))
    return {name: value for name, value in found.items() if CONSTANTS[name].range.fits(value)}


def lines(method: str, constants: Mapping[str, float]) -> list[Line]:
    """All statements about `method`. Raises `ConfigError` for an unknown method."""
    found = []
    for one in statements_of(method):
        try:
            value, missing, assumed = evaluate(one, constants)
        except ConfigError as error:
            found.append(Line(one, None, (), (), str(error)))
        else:
            found.append(Line(one, value, tuple(missing), tuple(assumed)))
    return found


def theory_table(method: str, found: Sequence[Line]) -> Table:
    """The statements about a method, a line each."""
    table = Table(title=method, title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False)
    for heading in ("", "assumes", "statement", "value", "source"):
        table.add_column(heading, overflow="fold")
    for line in found:
        one = line.statement
        remark = f" ({', '.join(line.assumed)})" if line.assumed else ""
        table.add_row(
            *(one.kind, one.case, Text(one.text)),
            Text(_value(line) + remark, style="bold" if line.value is not None else "dim"),
            one.source,
        )
    return table


def _value(line: Line) -> str:
    if line.refused:
        return line.refused
    if line.value is None:
        return "needs " + ", ".join(line.missing)
    if isinstance(line.value, Mapping):
        return ", ".join(f"{name}={value:.6g}" for name, value in line.value.items())
    unit = "" if line.statement.unit == "1" else f" {line.statement.unit}"
    return f"{line.value:.6g}{unit}" if math.isfinite(line.value) else "no limit"


def constants_table(names: Sequence[str]) -> Table:
    """What the constants mean, with units and ranges."""
    table = Table(title="constants", title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False)
    for heading in ("name", "in papers", "meaning", "unit", "allowed"):
        table.add_column(heading, overflow="fold")
    for name in names:
        one = CONSTANTS[name]
        meaning = one.meaning + (f" (default: {one.like})" if one.like else "")
        table.add_row(name, Text(one.symbol), meaning, one.unit, one.range.allowed)
    return table


def methods_table() -> Table:
    """The methods that theory is there for, and how much."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("method", "step sizes", "bounds"):
        table.add_column(heading)
    for method in stated_methods():
        kinds = [one.kind for one in statements_of(method)]
        table.add_row(method, str(kinds.count("step size")), str(kinds.count("bound")))
    return table


def as_json(method: str, constants: Mapping[str, float], found: Sequence[Line]) -> dict[str, object]:
    """What `telegrad theory --json` writes."""
    rows = [
        {
            "kind": line.statement.kind,
            "assumes": line.statement.case,
            "statement": line.statement.text,
            "unit": line.statement.unit,
            "source": line.statement.source,
            "value": _plain(line.value),
            "missing": list(line.missing),
            "assumed": list(line.assumed),
            "refused": line.refused,
        }
        for line in found
    ]
    return {"method": method, "constants": dict(constants), "statements": rows}


def _plain(value: Value | None) -> object:
    if isinstance(value, Mapping):
        return {name: _plain(number) for name, number in value.items()}
    return value if value is None or math.isfinite(value) else None
