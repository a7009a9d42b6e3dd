"""The report: one HTML file that needs nothing else, and the plots beside it."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from importlib import resources
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from telegrad.files import write_atomic
from telegrad.lab.config import to_yaml
from telegrad.lab.curves import AXES, DARK, LIGHT, Curve, curves
from telegrad.lab.experiment import Experiment
from telegrad.lab.plots import plots
from telegrad.lab.records import RunDirectory, to_json
from telegrad.lab.tables import NOTHING, bits, metric, metric_with_spread, notes, number, seconds

__all__ = ["html_report", "write_report"]


def write_report(directory: RunDirectory) -> dict[str, Any]:
    """Rebuild all records, report.html and the PNG plots from the finished runs; the summary is returned."""
    summary = directory.rebuild()
    found = curves(directory.experiment, directory.runs)
    write_atomic(directory.path / "report.html", html_report(directory.experiment, summary, found))
    for name, image in plots(summary, found).items():
        write_atomic(directory.path / name, image)
    return summary


def html_report(experiment: Experiment, summary: dict[str, Any], found: Sequence[Curve]) -> str:
    """The report's text. All that a user wrote is escaped; scripts and styles are inlined, so nothing is fetched."""
    name = summary["metric"] or "metric"
    payload = {
        "metric": name,
        "higherIsBetter": summary["higher_is_better"],
        "target": summary["target"],
        "axes": AXES,
        "light": LIGHT,
        "dark": DARK,
        "curves": [dataclasses.asdict(curve) for curve in found],
        "results": [{key: row[key] for key in ("label", "lr", "searched")} for row in summary["results"]],
    }
    return Template(_asset("report.html")).substitute(
        title=html.escape(f"Gradient compression on {summary['workload']}"),
        setting=html.escape(_setting(experiment, summary)),
        complete="" if summary["complete"] else _PARTIAL,
        highlights=_highlights(summary),
        table=_table(summary),
        fields=_fields(summary),
        reading=_reading(experiment, summary),
        configuration=html.escape(to_yaml(experiment)),
        style=_asset("report.css"),
        # No "</script>" or "<!--" can end or upset the script element that holds it.
        payload=to_json(payload).replace("<", "\\u003c"),
        plotly=get_plotlyjs(),
        script=_asset("report.js"),
    )


_PARTIAL = '<p class="warning" role="note">Some runs are still to do: the same command resumes them.</p>'


def _asset(name: str) -> str:
    return resources.files("telegrad.lab").joinpath(name).read_text(encoding="utf-8")


def _setting(experiment: Experiment, summary: dict[str, Any]) -> str:
    parts = [
        f"{experiment.workers} workers",
        f"{experiment.steps} steps",
        f"batch {experiment.batch_size or 'of all examples'} a worker",
        f"{len(experiment.seeds)} seed{'s' * (len(experiment.seeds) != 1)}",
    ]
    if summary["parameters"]:
        parts.append(f"{summary['parameters']:,} parameters")
    return " · ".join(parts)


def _highlights(summary: dict[str, Any]) -> str:
    """The facts a reader comes for: the best metric, the fewest bits to the target, and what they save."""
    name, rows = summary["metric"], [row for row in summary["results"] if row["metric_mean"] is not None]
    if not rows:
        return ""
    pick = max if summary["higher_is_better"] else min
    best = pick(rows, key=lambda row: row["metric_mean"])
    tiles = [(f"Best test {name}", metric_with_spread(best["metric_mean"], best["metric_std"], name), best["label"])]
    reached = {row["label"]: row for row in rows if row["bits_to_target"] is not None}
    if reached:
        least = min(reached.values(), key=lambda row: row["bits_to_target"])
        goal = metric(summary["target"], name)
        tiles.append((f"Fewest uplink bits to {goal}", bits(least["bits_to_target"]), least["label"]))
        plain = reached.get(summary["baseline"])
        if plain and least["bits_to_target"]:
            saving = f"{number(plain['bits_to_target'] / least['bits_to_target'])} ×"
            tiles.append((f"Fewer uplink bits than {plain['label']} by", saving, least["label"]))
            both = _total_to_target(plain) / _total_to_target(least)
            tiles.append(("Fewer bits up and down together by", f"{number(both)} ×", least["label"]))
    return "".join(
        f'<div class="tile"><dt>{what}</dt><dd>{value}<small>{who}</small></dd></div>'
        for what, value, who in (map(html.escape, tile) for tile in tiles)
    )


def _total_to_target(row: dict[str, Any]) -> float:
    """Bits up and down until the target is reached: what comes down is as much in every step."""
    down: float = row["bits_down_per_worker"] * row["steps_to_target"] / row["steps"]
    total: float = row["bits_to_target"] + down
    return total


def _table(summary: dict[str, Any]) -> str:
    name = summary["metric"]
    columns: list[tuple[str, str, Any]] = [
        (
            f"Test {name or 'metric'}",
            "metric_mean",
            lambda row: metric_with_spread(row["metric_mean"], row["metric_std"], name),
        ),
        ("Learning rate", "lr", lambda row: NOTHING if row["lr"] is None else f"{row['lr']:g}"),
        ("Uplink bits", "bits_up_per_worker", lambda row: bits(row["bits_up_per_worker"])),
        ("Downlink bits", "bits_down_per_worker", lambda row: bits(row["bits_down_per_worker"])),
        ("Compression", "compression_ratio", lambda row: _times(row["compression_ratio"])),
        ("Bits to target", "bits_to_target", lambda row: bits(row["bits_to_target"])),
        ("Steps to target", "steps_to_target", lambda row: number(row["steps_to_target"])),
        ("Time a step", "seconds_per_step", lambda row: seconds(row["seconds_per_step"])),
        (
            "Of it encoding",
            "encode_share",
            lambda row: NOTHING if row["encode_share"] is None else f"{100 * row['encode_share']:.0f} %",
        ),
    ]
    head = "".join(
        f'<th scope="col"><button type="button" class="sort">{html.escape(text)}</button></th>'
        for text in ("Method", *(text for text, _, _ in columns))
    )
    body = ""
    for row in summary["results"]:
        label = html.escape(row["label"])
        remarks = "".join(f"<small>{html.escape(note)}</small>" for note in notes(row))
        spec = "" if row["label"] == row["method"] else f"<small>{_spec(row['method'])}</small>"
        cells = "".join(
            f'<td data-key="{key}" data-value="{"" if row[key] is None else row[key]}">{html.escape(show(row))}</td>'
            for _, key, show in columns
        )
        head_cell = f'<th scope="row" data-value="{label}"><span>{_spec(row["label"])}</span>{spec}{remarks}</th>'
        body += f"<tr>{head_cell}{cells}</tr>"
    return f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"


_FIELDS = ("value", "sign", "index", "scale", "level", "header")


def _fields(summary: dict[str, Any]) -> str:
    """A bar a method, divided by the fields of its messages."""
    rows = [row for row in summary["results"] if row["bits_up_by_field"]]
    seen = {name for row in rows for name in row["bits_up_by_field"]}
    names = [name for name in _FIELDS if name in seen] + sorted(seen.difference(_FIELDS))
    kinds = {name: name if name in _FIELDS else "other" for name in names}
    keys = "".join(f'<li class="{kinds[name]}">{html.escape(name)}</li>' for name in names)
    bars = ""
    for row in rows:
        by_field, total = row["bits_up_by_field"], sum(row["bits_up_by_field"].values())
        shares = {name: 100 * by_field[name] / total for name in names if name in by_field}
        told = html.escape(
            ", ".join(f"{name} {share:.1f} % ({bits(by_field[name])})" for name, share in shares.items())
        )
        parts = "".join(f'<i class="{kinds[name]}" style="width:{share:.4f}%"></i>' for name, share in shares.items())
        bar = f'<div class="bar" role="img" title="{told}" aria-label="{told}">{parts}</div>'
        bars += (
            f'<div class="row"><dt>{_spec(row["label"])}</dt><dd class="share">{bar}</dd><dd>{bits(total)}</dd></div>'
        )
    return f'<ul class="keys">{keys}</ul><dl class="fields">{bars}</dl>'


def _spec(text: str) -> str:
    """A spec or label as HTML that may break where a person would break it."""
    return html.escape(text).replace("(", "(<wbr>")


def _times(value: float | None) -> str:
    return NOTHING if value is None else f"{number(value)} ×"


def _reading(experiment: Experiment, summary: dict[str, Any]) -> str:
    """How the numbers came about, as list items."""
    name = summary["metric"] or "metric"
    goal = "no target" if summary["target"] is None else f"{metric(summary['target'], name)}"
    said = [
        f"Target: {goal} ({summary['target_rule']}). Bits and steps to target are those of the first evaluation whose "
        f"validation {name} reaches it, mean over seeds; they are left out where a seed never does.",
        f"The learning rate of each method is the one with the best final validation {name} for seed "
        f"{experiment.seeds[0]}, the smaller one of equals. The test split had no say in it. "
        "Where it lies at the edge of its grid, a wider grid may do better.",
        f"Test {name} is that of the last step: mean and sample standard deviation over seeds. "
        "Bands span the least and the greatest seed.",
        "Bits are the lengths of the packed messages, header included, mean over workers. Compression is 32 bits a "
        "parameter and step over the uplink bits.",
        "Time a step is that of the simulation, all workers on one machine, without evaluation: it says what encoding "
        "costs, not how fast a cluster is.",
        f"Run on: {_origin(summary)}.",
    ]
    return "".join(f"<li>{html.escape(line)}</li>" for line in said)


def _origin(summary: dict[str, Any]) -> str:
    machine = summary["machine"] or {}
    words = [
        machine.get("cpu"),
        f"{machine.get('cores')} cores",
        f"Python {machine.get('python')}",
        f"torch {machine.get('torch')}",
        f"telegrad {summary['telegrad_version']}",
        f"commit {summary['commit'][:12]}" if summary["commit"] else None,
        "and other machines or versions, see summary.json" if summary["mixed_origins"] else None,
    ]
    return ", ".join(word for word in words if word)
