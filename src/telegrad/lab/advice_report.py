"""What `telegrad advise` shows: a table, a plot, and figures for machines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from telegrad.lab.tables import NOTHING, bits, number, seconds
from telegrad.theory.advice import DO_NOT_COMPRESS, Advice, Prediction

__all__ = ["advice_json", "advice_lines", "advice_plot", "advice_table"]


def advice_table(advice: Advice, most: int = 12) -> Table:
    """The `most` best predictions and uncompressed training, the least time to the target first; the recommended one is
    bold.
    """
    shown = advice.predictions[:most]
    shown += () if advice.dense in shown else (advice.dense,)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("compressor @ topology", overflow="fold", min_width=24)
    for heading in ("a step", "of it sending", "sent a step", "ω", "steps", "to target", "pays below"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in shown:
        style = "bold" if one is advice.choice else ""
        table.add_row(
            Text(one.name, style=style),
            *(seconds(one.step.seconds), seconds(one.step.transfer), bits(8 * one.step.sent)),
            *(number(one.omega), number(one.steps), _duration(one.seconds), _bandwidth(one.break_even)),
        )
    return table


def _bandwidth(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "any" if math.isinf(value) else f"{bits(value)}/s"


def _duration(value: float) -> str:
    """Seconds, minutes, hours or days with three digits."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if value >= size:
            return f"{number(value / size)} {unit}"
    return seconds(value)


def advice_lines(advice: Advice) -> list[str]:
    """The recommendation, its reasons, and what was assumed."""
    said = advice.choice.name if advice.compress else DO_NOT_COMPRESS
    time = f"{seconds(advice.choice.step.seconds)} a step, {_duration(advice.choice.seconds)} to the target"
    return [
        f"recommended: {said} ({time})",
        *(f"  {reason}" for reason in advice.reasons),
        "assumed:",
        *(f"  {assumption}" for assumption in advice.assumptions),
    ]


def advice_json(advice: Advice) -> dict[str, Any]:
    """What `telegrad advise --json` writes: seconds, bytes, bits per second; null where there is no such number."""

    def row(one: Prediction) -> dict[str, Any]:
        found = dataclasses.asdict(one)
        found |= {name: _finite(found[name]) for name in ("break_even", "break_even_step")}
        return {"name": one.name, **found}

    return {
        "recommended": advice.choice.name if advice.compress else DO_NOT_COMPRESS,
        "compress": advice.compress,
        "reasons": list(advice.reasons),
        "assumptions": list(advice.assumptions),
        "cluster": {name: _finite(value) for name, value in dataclasses.asdict(advice.cluster).items()},
        "predictions": [row(one) for one in advice.predictions],
    }


def _finite(value: float | None) -> float | str | None:
    return "unlimited" if value is not None and math.isinf(value) else value


def advice_plot(advices: Callable[[float], Advice], here: Advice, path: Path, most: int = 8) -> None:
    """Time to the target against the bandwidth, for the `most` best ways here and the uncompressed one, as a PNG.

    `advices` gives the advice at another bandwidth.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    low = min(1e6, here.cluster.bandwidth / 10)
    high = max(1e12, here.cluster.bandwidth * 10) if math.isfinite(here.cluster.bandwidth) else 1e12
    rates = [low * (high / low) ** (i / 60) for i in range(61)]
    names = [one.name for one in here.predictions[:most]]
    names += [here.dense.name] if here.dense.name not in names else []
    curves: dict[str, list[float]] = {name: [] for name in names}
    for rate in rates:
        found = {one.name: one.seconds for one in advices(rate).predictions}
        for name in names:
            curves[name].append(found[name])
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for number_, name in enumerate(names):
        plain = name == here.dense.name
        line = "k--" if plain else ("-", "--", ":")[number_ // 10 % 3]
        axes.plot(rates, curves[name], line, linewidth=1.6, label=name)
    axes.axvline(here.cluster.bandwidth, color="#888", linewidth=0.8)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="bandwidth of a link",
        ylabel="seconds to the target",
        title=f"predicted, {here.cluster.workers} workers",
    )
    axes.xaxis.set_major_formatter(EngFormatter(unit="bit/s"))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", metadata={"Software": None})  # whatever the name: it stays as it is
