"""The figure and the tables of what `compare` measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from compare import FAMILIES

Row = dict[str, Any]
AXES = {"bits": "bits_up_per_worker", "steps": "step", "seconds": "simulated_seconds"}
LABELS = {"bits": "bits up, a worker", "steps": "steps", "seconds": "simulated seconds"}
AIM = 1e-2
"""The part of the first ‖∇f‖² that is aimed at."""


def draw(rows: list[Row], dataset: str, workers: int, out: Path) -> None:
    """A line of panels for each family of methods, a panel for each cost; the other families in grey."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if (row["dataset"], row["workers"]) == (dataset, workers)]
    figure, grid = pyplot.subplots(len(FAMILIES), 3, figsize=(13, 3.1 * len(FAMILIES)), sharey=True, sharex="col")
    for line, (family, members) in zip(grid, FAMILIES.items(), strict=True):
        for axis, cost in zip(line, AXES, strict=True):
            for row in rows:
                x, y = costs(row, cost), row["curve"]["validation"]
                if row["method"] not in members:
                    axis.plot(x, y, color="0.85", linewidth=0.7, zorder=0)
            for row in rows:
                if row["method"] in members:
                    axis.plot(costs(row, cost), row["curve"]["validation"], label=row["method"], linewidth=1.4)
            axis.set(xscale="linear" if cost == "steps" else "log", yscale="log")
            axis.grid(alpha=0.3)
        line[0].set_ylabel(f"{family}\n‖∇f‖²")
        line[2].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    for axis, cost in zip(grid[-1], AXES, strict=True):
        axis.set_xlabel(LABELS[cost])
    figure.suptitle(f"{dataset}, {workers} workers, every worker other data", fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.99))
    figure.savefig(out, dpi=80)


def costs(row: Row, cost: str) -> list[float]:
    """A cost at each look. Where a step is one arrival, as many as there are workers count as one step."""
    per = row["workers"] if cost == "steps" and row["arrivals"] else 1
    return [value / per for value in row["curve"][AXES[cost]]]


def reached(row: Row, first: float) -> dict[str, float] | None:
    """What the method spent until ‖∇f‖² was `AIM` of its first value; None where it did not get there."""
    at = next((i for i, value in enumerate(row["curve"]["validation"]) if value <= AIM * first), None)
    return None if at is None else {cost: costs(row, cost)[at] for cost in AXES}


def tables(rows: list[Row]) -> str:
    """For every problem: what each method spent until ‖∇f‖² was a hundredth of its first value, and who spent least."""
    problems = dict.fromkeys((row["dataset"], row["workers"]) for row in rows)
    texts = []
    for dataset, workers in problems:
        own = [row for row in rows if (row["dataset"], row["workers"]) == (dataset, workers)]
        texts.append(_table(own, f"{dataset}, {workers} workers"))
    return "\n".join([_winners(rows, list(problems)), *texts])


def _winners(rows: list[Row], problems: list[tuple[str, int]]) -> str:
    lines = ["| problem | fewest bits | fewest steps | least time |", "|---|---|---|---|"]
    for dataset, workers in problems:
        own = [row for row in rows if (row["dataset"], row["workers"]) == (dataset, workers)]
        spent = {row["method"]: reached(row, _first(own)) for row in own}
        there = {name: spend for name, spend in spent.items() if spend is not None}
        cells = []
        for cost in AXES:
            best = sorted((spend[cost], name) for name, spend in there.items())[:3]
            cells.append(", ".join(f"{name} ({_number(cost, value)})" for value, name in best))
        lines.append(f"| {dataset}, {workers} workers | {' | '.join(cells)} |")
    return "\n".join(lines)


def _table(rows: list[Row], title: str) -> str:
    first = _first(rows)
    lines = [
        f"\n### {title}\n",
        f"First ‖∇f‖²: {first:.3g}.\n",
        "| method | step, × theory's | kbit up | steps | seconds | last ‖∇f‖² | at theory's step |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        spent = reached(row, first)
        cells = ["–"] * 3 if spent is None else [_number(cost, spent[cost]) for cost in AXES]
        factor = f"{row['factor']}" if row["theory"] else f"{row['factor']} (of .01/L)"
        at_theory = f"{row['at_theory']:.2g}" if row["theory"] and math.isfinite(row["at_theory"]) else "–"
        lines.append(
            f"| {row['method']} | {factor} | {' | '.join(cells)} | {row['curve']['validation'][-1]:.2g} | {at_theory} |"
        )
    return "\n".join(lines)


def _first(rows: list[Row]) -> float:
    return max(row["curve"]["validation"][0] for row in rows)


def _number(cost: str, value: float) -> str:
    return {"bits": f"{value / 1000:.1f}", "steps": f"{value:.0f}", "seconds": f"{value:.3g}"}[cost]
