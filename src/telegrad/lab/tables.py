"""Numbers as people read them, and the table at the end of a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from telegrad.lab.variance import Measurement

if TYPE_CHECKING:
    from telegrad.lab.bench import Share
    from telegrad.lab.timing import Timing

__all__ = [
    "NOTHING",
    "bits",
    "footnotes",
    "metric",
    "metric_with_spread",
    "notes",
    "number",
    "seconds",
    "share_table",
    "summary_table",
    "timing_table",
    "variance_table",
]

NOTHING = "–"


def bits(value: float | None) -> str:
    """Bits with a decimal prefix and three significant digits: `3.15 Mbit`."""
    return _prefixed(value, (("Tbit", 1e12), ("Gbit", 1e9), ("Mbit", 1e6), ("kbit", 1e3), ("bit", 1.0)))


def seconds(value: float | None) -> str:
    """Seconds as s, ms or µs with three significant digits."""
    return _prefixed(value, (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)))


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits and no needless exponent."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    value = float(f"{value:.{digits - 1}e}")  # first, so that 0.9997 reads 1.00 and not 1.000
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}" if 1e-4 <= abs(value) < 1e7 else f"{value:.{digits - 1}e}"


def metric(value: float | None, name: str | None) -> str:
    """A metric's value: accuracies in per cent, others with four digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{100 * value:.2f} %" if name == "accuracy" else number(value, 4)


def metric_with_spread(mean: float | None, std: float | None, name: str | None) -> str:
    """`97.31 ± 0.20 %`, or the mean alone where there is no spread."""
    if mean is None or std is None:
        return metric(mean, name)
    return f"{100 * mean:.2f} ± {100 * std:.2f} %" if name == "accuracy" else f"{number(mean, 4)} ± {number(std, 2)}"


_AT_EDGE = "learning rate at the edge of its grid"


def notes(row: dict[str, Any]) -> list[str]:
    """What a reader of a row must know beside its numbers."""
    found = []
    if row["diverged"]:
        found.append("diverged at every learning rate")
    if row["diverged_seeds"]:
        found.append(f"{len(row['diverged_seeds'])} of {len(row['seeds'])} seeds diverged and are left out of the mean")
    if row["skipped_steps"]:
        found.append(f"{row['skipped_steps']} steps skipped for a non-finite gradient")
    if row["lr_at_edge"]:
        found.append(_AT_EDGE)
    if row["unfinished_runs"]:
        found.append(f"{row['unfinished_runs']} runs still to do")
    return found


def footnotes(summary: dict[str, Any]) -> list[str]:
    """The notes of all rows, a line each; the table's star is explained once."""
    rows = summary["results"]
    lines = [f"{row['label']}: {note}" for row in rows for note in notes(row) if note != _AT_EDGE]
    return lines + ["* at the edge of its grid: a wider one may do better"] * any(row["lr_at_edge"] for row in rows)


def summary_table(summary: dict[str, Any], width: int) -> Table:
    """The summary as a table for a terminal of `width` characters; a narrow one gets the columns that matter most."""
    name = summary["metric"]
    columns: list[tuple[str, Any]] = [
        (f"test {name or 'metric'}", lambda row: metric_with_spread(row["metric_mean"], row["metric_std"], name)),
        ("lr", lambda row: NOTHING if row["lr"] is None else f"{row['lr']:g}" + "*" * row["lr_at_edge"]),
        ("bits up", lambda row: bits(row["bits_up_per_worker"])),
        ("to target", lambda row: bits(row["bits_to_target"])),
    ]
    if width >= 110:
        columns[3:3] = [("ratio", lambda row: number(row["compression_ratio"]))]
        columns += [
            ("steps to target", lambda row: number(row["steps_to_target"])),
            ("time a step", lambda row: seconds(row["seconds_per_step"])),
        ]
    title = f"{summary['workload']}, {summary['workers']} workers"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", overflow="fold", min_width=20)
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summary["results"]:
        table.add_row(Text(row["label"]), *(show(row) for _, show in columns))
    return table


def _prefixed(value: float | None, units: tuple[tuple[str, float], ...]) -> str:
    if value is None or not math.isfinite(value):
        return NOTHING
    # The threshold lets 999.7 k read as 1.00 M, not as 1000 k.
    unit, size = next((unit for unit in units if abs(value) >= 0.9995 * unit[1]), units[-1])
    return f"{number(value / size)} {unit}"


def variance_table(measurements: Sequence[Measurement], vector: str) -> Table:
    """The table of `telegrad variance`: a line a compressor, in the order of bits."""
    table = Table(box=box.SIMPLE, title=vector, title_justify="left", title_style="bold")
    table.add_column("compressor", overflow="fold")
    for heading in ("bits", "a coordinate", "omega", "± error", "predicted", "worst case"):
        table.add_column(heading, justify="right")
    for one in measurements:
        name = Text(one.spec) if one.unbiased else Text.assemble(one.spec, (" biased", "dim"))
        figures = (one.bits_per_coordinate, one.omega, one.error, one.predicted, one.bound)
        table.add_row(name, bits(one.bits), *(number(figure) for figure in figures))
    return table


def timing_table(timings: Sequence[Timing]) -> Iterator[Table]:
    """The tables of `telegrad bench encode` and `decode`: one for each tensor, ours first."""
    for (size, vector), rows in groupby(timings, key=lambda row: (row.size, row.vector)):
        table = Table(box=box.SIMPLE, title=f"{size:,} entries, {vector}", title_justify="left", title_style="bold")
        table.add_column("", overflow="fold")
        for heading in ("time", "x copy", "extra memory", "message", "first call"):
            table.add_column(heading, justify="right")
        for row in rows:
            memory = NOTHING if row.extra_bytes is None else f"{number(row.extra_bytes, 2)} x"
            times = (seconds(row.seconds), number(row.ratio))
            table.add_row(
                Text(row.name, style="bold" if row.ours else ""),
                *times,
                memory,
                bits(row.bits),
                seconds(row.first_seconds) if row.first_seconds else NOTHING,
            )
        yield table


def share_table(shares: Sequence[Share]) -> Table:
    """The table of `telegrad bench step`."""
    title = f"digits CNN, {shares[0].workers} workers" if shares else ""
    table = Table(box=box.SIMPLE, title=title, title_justify="left", title_style="bold")
    table.add_column("method", overflow="fold")
    for heading in ("time a step", "of it compression", "share"):
        table.add_column(heading, justify="right")
    for row in shares:
        times = (seconds(row.seconds_per_step), seconds(row.encode_seconds_per_step))
        table.add_row(Text(row.method), *times, f"{100 * row.share:.1f} %")
    return table
