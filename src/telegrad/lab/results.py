"""The pages of results: their tables and plots are rebuilt from records; the sentences between them are people's.

A page is Markdown with marks. Between `<!-- results: NAME -->` and `<!-- end -->` stand the plots, the table and the
setting of the records NAME; between `<!-- leaderboard -->` and `<!-- end -->`, every method of every experiment. Within
a sentence, `<!-- row: NAME; LABEL; FIELD -->` and `<!-- end -->` enclose a figure of the method LABEL: its metric, bits
or steps (to the target), or level.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telegrad.errors import DataError
from telegrad.lab.curves import curves
from telegrad.lab.links import LINKS, Link, transfer_seconds
from telegrad.lab.merge import run_directories
from telegrad.lab.plots import plots
from telegrad.lab.records import RunDirectory, write_atomic
from telegrad.lab.summary import summarise
from telegrad.lab.tables import NOTHING, bits, metric, metric_with_spread, notes, number, seconds

__all__ = ["rebuilt_pages", "write_pages"]

_BLOCK = re.compile(r"(<!-- (results: *(?P<name>[\w-]+)|leaderboard) -->\n).*?(<!-- end -->)", re.DOTALL)
_FIGURE = re.compile(
    r"(<!-- row: *(?P<name>[^;]+); *(?P<label>[^;]+); *(?P<field>\w+) -->).*?(<!-- end -->)", re.DOTALL
)
_PLOTS = {"metric-vs-bits.png": "bits", "metric-vs-steps.png": "steps", "metric-vs-transfer.png": "transfer"}


@dataclass(frozen=True)
class _Results:
    name: str
    directory: RunDirectory
    summary: dict[str, Any]


def write_pages(records: Path, pages: Path) -> list[Path]:
    """Rebuild the marked parts of the pages and their plots; the files written are returned.

    Raises `DataError` for a folder without pages, and where a page asks for records that are not there.
    """
    every = _results_in(records)
    texts = rebuilt_pages(records, pages)
    for file, text in texts.items():
        write_atomic(file, text)
    shown = dict.fromkeys(match["name"] for text in texts.values() for match in _BLOCK.finditer(text))
    return [*texts, *(plot for name in shown if name is not None for plot in _write_plots(every[name], pages))]


def rebuilt_pages(records: Path, pages: Path) -> dict[Path, str]:
    """What `write_pages` would make of each page's text."""
    every = _results_in(records)
    files = sorted(pages.glob("*.md"))
    if not files:
        raise DataError(f"{pages} holds no pages (*.md) with marks such as <!-- results: {next(iter(every))} -->")

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        content = _leaderboard(list(every.values())) if name is None else _section(_of(every, name))
        return f"{match[1]}{content}\n{match[4]}"

    def figure(match: re.Match[str]) -> str:
        return f"{match[1]}{_figure(every, match['name'], match['label'], match['field'])}{match[5]}"

    return {file: _FIGURE.sub(figure, _BLOCK.sub(block, file.read_text(encoding="utf-8"))) for file in files}


def _results_in(records: Path) -> dict[str, _Results]:
    found = {name or records.name: RunDirectory.load(path) for name, path in run_directories(records).items()}
    return {name: _Results(name, one, summarise(one.experiment, one.runs)) for name, one in found.items()}


def _of(every: dict[str, _Results], name: str) -> _Results:
    if name not in every:
        raise DataError(f"no records {name!r}; there are {', '.join(every)}")
    return every[name]


def _figure(every: dict[str, _Results], name: str, label: str, field: str) -> str:
    """A figure of a row as a sentence cites it."""
    summary = _of(every, name).summary
    rows = {row["label"]: row for row in summary["results"]}
    if label not in rows:
        raise DataError(f"no method {label!r} in {name}; there are {', '.join(rows)}")
    row = rows[label]
    shown = {
        "metric": metric_with_spread(row["metric_mean"], row["metric_std"], summary["metric"]),
        "bits": bits(row["bits_to_target"]),
        "steps": number(row["steps_to_target"]),
        "level": number(row["mean_level"]),
        "seeds": str(len(row["seeds"])),
    }
    if field not in shown:
        raise DataError(f"no figure {field!r}; there are {', '.join(shown)}")
    return shown[field]


def _write_plots(results: _Results, pages: Path) -> list[Path]:
    images = plots(results.summary, curves(results.directory.experiment, results.directory.runs))
    written = []
    for name, kind in _PLOTS.items():
        written.append(pages / f"{results.name}-{kind}.png")
        write_atomic(written[-1], images[name])
    return written


def _section(results: _Results) -> str:
    summary, experiment = results.summary, results.directory.experiment
    name, rows = summary["metric"], _ranked(summary)
    runs = results.directory.runs
    trained = sum(run.records[-1]["seconds"] for run in runs if run.records)
    commits = sorted({str(run.provenance["commit"])[:8] for run in runs})
    machines = sorted({_machine(run.provenance["machine"]) for run in runs})
    setting = (
        f"`{experiment.workload}`, {experiment.workers} workers, {experiment.steps} steps, batch "
        f"{experiment.batch_size or 'of all examples'} a worker; {len(runs)} runs"
    )
    columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("method", _method),
        (f"test {name}", _metric(summary)),
        ("seeds", lambda row: str(len(row["seeds"]))),
        ("rate", lambda row: NOTHING if row["lr"] is None else f"{row['lr']:g}" + "\\*" * row["lr_at_edge"]),
        ("bits up", lambda row: bits(row["bits_up_per_worker"])),
        ("by the paper's account", lambda row: bits(row["paper_bits_up_per_worker"])),
        ("steps to target", lambda row: number(row["steps_to_target"])),
        ("bits to target", lambda row: bits(row["bits_to_target"])),
        *((f"transfer at {link.name}", _transfer(summary, link)) for link in LINKS),
        ("mean level", lambda row: number(row["mean_level"])),
        ("time a step", lambda row: seconds(row["seconds_per_step"])),
    ]
    lines = [f"![Test {name} against uplink bits]({results.name}-bits.png)"]
    lines += [f"![Test {name} against steps]({results.name}-steps.png)"]
    lines += [f"![Test {name} against transfer time]({results.name}-transfer.png)", "", _table(columns, rows), ""]
    lines += [f"{row['label']}: {note}.  " for row in rows for note in notes(row) if not note.startswith("the chosen")]
    goal = metric(summary["target"], name)
    lines += [
        "",
        f"Setting: {setting}. Target: validation {name} {goal} ({summary['target_rule']}).  ",
        f"Command: `telegrad run experiments/{results.name}.yaml --data DIR`.  ",
        f"Commit {', '.join(commits)}; {'; '.join(machines)}; {number(trained / 60)} minutes of training.",
    ]
    return "\n".join(lines)


def _leaderboard(every: Sequence[_Results]) -> str:
    parts = []
    for results in every:
        summary, name = results.summary, results.summary["metric"]
        columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
            ("method", _method),
            ("bits to target", lambda row: bits(row["bits_to_target"])),
            ("steps to target", lambda row: number(row["steps_to_target"])),
            *((f"transfer at {link.name}", _transfer(summary, link)) for link in LINKS),
            (f"test {name}", _metric(summary)),
            ("seeds", lambda row: str(len(row["seeds"]))),
        ]
        title = results.directory.experiment.title or results.name
        goal = f"target: validation {name} {metric(summary['target'], name)}"
        parts.append(f"### {title}\n\n`{summary['workload']}`, {goal}\n\n{_table(columns, _ranked(summary))}\n")
    return "\n".join(parts)


def _ranked(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows by bits to target; those that did not reach it after them, by their metric."""
    sign = -1.0 if summary["higher_is_better"] else 1.0

    def place(row: dict[str, Any]) -> tuple[bool, float]:
        if row["bits_to_target"] is not None:
            return False, row["bits_to_target"]
        return True, float("inf") if row["metric_mean"] is None else sign * row["metric_mean"]

    return sorted(summary["results"], key=place)


def _metric(summary: dict[str, Any]) -> Callable[[dict[str, Any]], str]:
    return lambda row: metric_with_spread(row["metric_mean"], row["metric_std"], summary["metric"])


def _transfer(summary: dict[str, Any], link: Link) -> Callable[[dict[str, Any]], str]:
    """The time that messages travel until the target is reached."""

    def show(row: dict[str, Any]) -> str:
        steps, sent = row["steps_to_target"], row["bits_to_target"]
        if steps is None or sent is None:
            return NOTHING
        return seconds(
            transfer_seconds(link, summary["workers"], summary["parameters"], steps, sent, row["uncompressed"])
        )

    return show


def _method(row: dict[str, Any]) -> str:
    return row["label"] if row["label"] == row["method"] else f"{row['label']}<br>`{row['method']}`"


def _table(columns: Sequence[tuple[str, Callable[[dict[str, Any]], str]]], rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(heading for heading, _ in columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(show(row).replace("|", "\\|") for _, show in columns) + " |" for row in rows]
    return "\n".join(lines)


def _machine(machine: dict[str, Any]) -> str:
    return f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}"
