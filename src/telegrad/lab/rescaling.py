"""What `telegrad rescale` reads and shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from rich import box
from rich.table import Table

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, SpecError
from telegrad.lab.tables import number
from telegrad.lab.vectors import quantile_vector
from telegrad.random import Key
from telegrad.spec import build
from telegrad.theory.ranges import COUNT, check
from telegrad.theory.scaling import Free, Run

__all__ = ["checked_free", "omega_on_noise", "rescale_table", "runs"]

_CHANGES = ("workers", "batch_size", "compressor", "omega", "optimizer", "momentum", "noise", "lr")


def omega_on_noise(spec: str | None, d: int) -> float:
    """ω of an unbiased compressor on d Gaussian entries, what gradients look like near stationarity (D4.7); 0 without
    one. Raises `SpecError` for a biased compressor.
    """
    if spec is None:
        return 0.0
    compressor: Compressor = build(spec, "compressor")
    if not compressor.unbiased:
        raise SpecError(f"{spec} is biased: the scaling rules are for unbiased compressors and for optimizer=sign")
    x = quantile_vector("gauss", min(d, 1_000_000), Key(0))
    return compressor.variance(x) / float(x.double().square().sum())


def runs(tuned: Mapping[str, Any], changes: Sequence[str], d: int, free: Free) -> tuple[Run, Run, float | None]:
    """The tuned run, the run after the `changes` (words such as `workers=16`), and the noise that is new in it.

    Raises `ConfigError` for words that are none, that are there twice, or that change what the rule sets (`free`).
    """
    new: dict[str, Any] = {}
    for word in changes:
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        if name not in _CHANGES or not equals:
            close = get_close_matches(name, _CHANGES, n=1)
            hint = f"did you mean {close[0]}=…?" if close and name not in _CHANGES else f"one of {', '.join(_CHANGES)}"
            raise ConfigError(f"{word!r}: write a change as NAME=VALUE, {hint}, for example workers=16")
        if name in new:
            raise ConfigError(f"{name} is given twice")
        if name == free:
            other = "batch_size" if free == "lr" else "lr"
            raise ConfigError(
                f"{word}: the rule sets {free}; leave it out, or let the rule set another: --free {other}"
            )
        new[name] = value if name in ("compressor", "optimizer") else _number(name, value)
    if "compressor" in new and "omega" in new:
        raise ConfigError("compressor and omega are given: write one, omega is what the compressor's would be")
    noise = new.pop("noise", None)
    for values in (tuned, new):
        check(**{name: (values[name], COUNT) for name in ("workers", "batch_size") if name in values})
    return Run(**_plain(tuned, d)), Run(**_plain({**tuned, **new}, d)), noise


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name}={text}: a number is wanted") from None


def _plain(given: Mapping[str, Any], d: int) -> dict[str, Any]:
    values = {name: value for name, value in given.items() if name != "compressor"}
    if values["optimizer"] != "sign":
        values.setdefault("omega", omega_on_noise(given["compressor"], d))
    return values


def checked_free(name: str) -> Free:
    """What the rule may set. Raises `ConfigError` for another name."""
    known: dict[str, Free] = {"lr": "lr", "batch_size": "batch_size", "batch-size": "batch_size", "workers": "workers"}
    if name not in known:
        raise ConfigError(f"free={name}: lr, batch_size or workers is allowed")
    return known[name]


def rescale_table(old: Run, new: Run) -> Table:
    """Both runs beside each other."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("", "tuned", "rescaled"):
        table.add_column(heading, justify="right" if heading else "left")
    shown = [field.name for field in fields(Run)]
    if old.optimizer != "adamw":
        shown.remove("beta2")
    for name in shown:
        before, after = getattr(old, name), getattr(new, name)
        if name == "steps":
            before, after = round(before), round(after)
        words = [value if isinstance(value, str) else _show(value) for value in (before, after)]
        table.add_row(name, *words, style="bold" if words[0] != words[1] else "")
    return table


def _show(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else number(value, 4)
