"""The plot of `telegrad bench`: bars beside a copy, lines over sizes, or shares of a step."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from telegrad.lab.bench import Share
from telegrad.lab.curves import LIGHT
from telegrad.lab.timing import Timing

__all__ = ["speed_plot"]

_OURS, _PEER = LIGHT[5], LIGHT[0]
_MARKERS = "osD^vPX*"


def speed_plot(rows: Sequence[Timing] | Sequence[Share], path: Path) -> None:
    """Write a PNG, a panel for each law of the entries: the times of one size as multiples of a copy's, those of
    several sizes as nanoseconds an entry; of simulated steps the share that compression takes.
    """
    timings = [row for row in rows if isinstance(row, Timing)]
    shares = [row for row in rows if isinstance(row, Share)]
    vectors, sizes = sorted({row.vector for row in timings}), sorted({row.size for row in timings})
    lines = max(1, max((len(timings) // (len(vectors) * len(sizes)) if timings else len(shares)), 1))
    figure = Figure(figsize=(6.2 * max(1, len(vectors)), max(4.2, 1.6 + 0.2 * lines)), dpi=130, layout="constrained")
    panels = figure.subplots(1, max(1, len(vectors)), squeeze=False)[0]
    for axes, vector in zip(panels, vectors, strict=False):
        own = [row for row in timings if row.vector == vector]
        (_over_sizes if len(sizes) > 1 else _beside_a_copy)(axes, own)
        axes.set_title(f"{vector} entries" if len(sizes) > 1 else f"{sizes[0]:,} {vector} entries", loc="left")
    if shares:
        names, values = [row.method for row in shares], [row.share for row in shares]
        _bars(panels[0], names, values, [_OURS] * len(names))
        panels[0].xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        panels[0].set_xlabel("compression's share of a simulated step")
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str]) -> None:
    places = range(len(names))
    axes.barh(places, values, color=colours, height=0.7)
    axes.set_yticks(places, names, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _beside_a_copy(axes: Axes, rows: Sequence[Timing]) -> None:
    _bars(axes, [row.name for row in rows], [row.ratio for row in rows], [_OURS if row.ours else _PEER for row in rows])
    axes.set_xscale("log")
    axes.set_xlabel("time, as a multiple of a copy's")


def _over_sizes(axes: Axes, rows: Sequence[Timing]) -> None:
    for number, name in enumerate(dict.fromkeys(row.name for row in rows)):
        own = sorted((row for row in rows if row.name == name), key=lambda row: row.size)
        axes.plot(
            [row.size for row in own],
            [row.seconds / row.size * 1e9 for row in own],
            "-" if own[0].ours else "--",
            color=LIGHT[number % len(LIGHT)],
            marker=_MARKERS[number // len(LIGHT) % len(_MARKERS)],
            markersize=4,
            linewidth=1.6,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("entries")
    axes.set_ylabel("nanoseconds an entry")
    axes.grid(color="#e4e7eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
    for text in legend.get_texts():
        text.set_parse_math(False)
