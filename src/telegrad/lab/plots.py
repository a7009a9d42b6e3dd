"""The plots as PNG files: the test metric against bits, steps and epochs."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from telegrad.lab.curves import AXES, LIGHT, Curve

__all__ = ["plots"]

_FILES = {
    "metric-vs-bits.png": "bits_up",
    "metric-vs-steps.png": "step",
    "metric-vs-epochs.png": "epoch",
    "metric-vs-transfer.png": "100 Mbit/s",
}
_LOGARITHMIC = ("bits_up", "100 Mbit/s")
_MARKERS, _DASHES = "osD^vP", ("-", "--", ":", "-.")
_TITLE_WIDTH = 70  # characters of the title's size across the plot
_GREY = "#5a6472"


def plots(summary: dict[str, Any], found: Sequence[Curve]) -> dict[str, bytes]:
    """PNG files by name, drawn without a display, the same bytes for the same records.

    1200 x 750 pixels, taller for more than six methods.
    """
    return {name: _png(summary, found, axis) for name, axis in _FILES.items()}


def _png(summary: dict[str, Any], found: Sequence[Curve], axis: str) -> bytes:
    # Three rows of the legend fit; more make the picture taller, not the plot smaller.
    legend_rows = (len(found) + 1) // 2
    figure = Figure(figsize=(8, 5 + 0.2 * max(0, legend_rows - 3)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for curve in found:
        _draw(axes, curve, axis)
    name = summary["metric"] or "metric"
    if axis in _LOGARITHMIC:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter(unit="bit" if axis == "bits_up" else "s"))
    if summary["higher_is_better"] is False and _all_positive(found):
        axes.set_yscale("log")
    if name == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    title = "\n".join(textwrap.wrap(_title(summary), _TITLE_WIDTH))
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", parse_math=False)
    axes.set_xlabel(AXES[axis], color=_GREY)
    axes.set_ylabel(f"test {name}", color=_GREY, parse_math=False)
    axes.grid(color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c4cad2")
    axes.tick_params(colors=_GREY)
    if found:
        legend = axes.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
        for text in legend.get_texts():
            text.set_parse_math(False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _title(summary: dict[str, Any]) -> str:
    seeds = max((len(row["seeds"]) for row in summary["results"]), default=0)
    spread = f", mean and range of {seeds} seeds" if seeds > 1 else ""
    name = summary["title"] or f"{summary['workload']}, {summary['workers']} workers"
    return f"{name}{spread}"


def _draw(axes: Axes, curve: Curve, axis: str) -> None:
    spread = curve.y["test"]
    # A logarithmic axis has no place for the start, where no bit was sent.
    kept = [
        i
        for i, mean in enumerate(spread.mean)
        if math.isfinite(mean) and (axis not in _LOGARITHMIC or curve.x[axis][i] > 0)
    ]
    x, mean, low, high = ([values[i] for i in kept] for values in (curve.x[axis], spread.mean, spread.low, spread.high))
    colour = LIGHT[curve.style % len(LIGHT)]
    dash = _DASHES[curve.style // len(LIGHT) % len(_DASHES)]
    marker = _MARKERS[curve.style % len(_MARKERS)]
    every = max(1, len(kept) // 10)
    # A leading underscore would keep a label out of matplotlib's legend.
    axes.plot(
        x,
        mean,
        dash,
        color=colour,
        marker=marker,
        markersize=4,
        markevery=every,
        linewidth=1.8,
        label="\u200b" * curve.label.startswith("_") + curve.label,
    )
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _all_positive(found: Sequence[Curve]) -> bool:
    return all(low > 0 for curve in found for low in curve.y["test"].low if math.isfinite(low))
