"""The figure and the table of benchmarks/methods.py compare."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

AXES = {
    "bits": ("bits up, a worker", "bits_up_per_worker"),
    "rounds": ("rounds", "step"),
    "seconds": ("simulated seconds", "simulated_seconds"),
}


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """A row of panels for each problem, one for each cost; and the table, printed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    problems = list(dict.fromkeys((row["dataset"], row["workers"]) for row in rows))
    names = list(dict.fromkeys(row["method"] for row in rows))
    colours = pyplot.get_cmap("turbo")
    styles = {name: (colours(i / len(names)), ("-", "--", ":")[i % 3]) for i, name in enumerate(names)}
    figure, grid = pyplot.subplots(len(problems), 3, figsize=(13, 3.6 * len(problems)), squeeze=False)
    for line, (dataset, workers) in zip(grid, problems, strict=True):
        for axis, (label, column) in zip(line, AXES.values(), strict=True):
            for row in rows:
                if (row["dataset"], row["workers"]) == (dataset, workers):
                    colour, style = styles[row["method"]]
                    curve, per = row["curve"], workers if row["method"].startswith("asynchronous") else 1
                    x = [value / (per if column == "step" else 1) for value in curve[column]]
                    axis.plot(x, curve["validation"], color=colour, linestyle=style, label=row["method"], linewidth=1.2)
            axis.set(xscale="symlog" if column != "step" else "linear", yscale="log", xlabel=label)
            axis.set_title(f"{dataset}, {workers} workers", fontsize=9)
            axis.grid(alpha=0.3)
        line[0].set_ylabel("‖∇f‖²")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, fontsize=8)
    figure.tight_layout(rect=(0, 0.35 / len(problems) * 0.9, 1, 1))
    figure.savefig(out, dpi=90)
    for dataset, workers in problems:
        print(table([row for row in rows if (row["dataset"], row["workers"]) == (dataset, workers)], dataset, workers))


def table(rows: list[dict[str, Any]], dataset: str, workers: int) -> str:
    """Bits, rounds and seconds until ‖∇f‖² is a hundredth of its first value, and the value in the end."""
    first = rows[0]["curve"]["validation"][0]
    lines = [
        f"\n{dataset}, {workers} workers; first ‖∇f‖² {first:.3g}\n",
        "| method | step, × theory's | kbit up | rounds | seconds | last ‖∇f‖² | at theory's step |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        curve = row["curve"]
        reached = next((i for i, value in enumerate(curve["validation"]) if value <= first / 100), None)
        per = workers if row["method"].startswith("asynchronous") else 1
        cost = ["–"] * 3
        if reached is not None:
            bits, step, seconds = (curve[AXES[name][1]][reached] for name in ("bits", "rounds", "seconds"))
            cost = [f"{bits / 1000:.1f}", f"{step / per:.0f}", f"{seconds:.2f}"]
        factor = f"{row['factor']}" if row["theory"] else f"{row['factor']} (of .01/L)"
        at_theory = f"{row['at_theory']:.2g}" if row["theory"] and math.isfinite(row["at_theory"]) else "–"
        lines.append(
            f"| {row['method']} | {factor} | {' | '.join(cost)} | {curve['validation'][-1]:.2g} | {at_theory} |"
        )
    return "\n".join(lines)
