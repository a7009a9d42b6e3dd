"""From finished runs to one row a method: the learning rate chosen, the metric, the bits, and what the target cost."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from telegrad.lab.experiment import Experiment, MethodEntry
from telegrad.lab.finished_run import FinishedRun
from telegrad.lab.target import first_reaching, is_uncompressed, target_of

__all__ = ["best_lr", "runs_at_best", "searched_runs", "summarise"]

_BITS = ("bits_up_per_worker", "bits_down_per_worker", "paper_bits_up_per_worker")


def best_lr(searched: Sequence[FinishedRun]) -> float | None:
    """The learning rate of the best final validation metric, the smaller one of equals; None where all runs diverged.

    The test metric has no say.
    """
    alive = [run for run in searched if not run.diverged]
    if not alive:
        return None
    sign = -1.0 if alive[0].higher_is_better else 1.0
    return min(alive, key=lambda run: (sign * run.final("validation"), run.lr)).lr


def searched_runs(experiment: Experiment, entry: MethodEntry, runs: Iterable[FinishedRun]) -> dict[float, FinishedRun]:
    """A method's runs with the first seed by learning rate: those that choose it."""
    first = experiment.seeds[0]
    return {run.lr: run for run in runs if run.label == entry.label and run.seed == first}


def runs_at_best(
    experiment: Experiment, entry: MethodEntry, runs: Iterable[FinishedRun]
) -> tuple[float | None, list[FinishedRun]]:
    """The best learning rate of a method so far and its runs there, one a seed."""
    own = [run for run in runs if run.label == entry.label]
    lr = best_lr(list(searched_runs(experiment, entry, own).values()))
    return lr, [run for run in own if run.lr == lr and run.seed in experiment.seeds]


def summarise(experiment: Experiment, runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """The content of summary.json. Bits are bits, times are seconds, `null` means: not reached, or not measured.

    Methods without a finished run are left out; `complete` says whether any run is still to do.
    """
    chosen = {entry.label: runs_at_best(experiment, entry, runs) for entry in experiment.methods}
    target = target_of(experiment, {label: alive(there) for label, (_, there) in chosen.items()})
    rows = [
        _row(experiment, entry, [run for run in runs if run.label == entry.label], *chosen[entry.label], target.value)
        for entry in experiment.methods
        if any(run.label == entry.label for run in runs)
    ]
    known = next((run for run in runs if run.metric is not None), None)
    origins: list[dict[str, Any]] = []
    for run in runs:
        if run.provenance not in origins:
            origins.append(run.provenance)
    first = origins[0] if origins else {}
    return {
        "workload": experiment.workload,
        "workers": experiment.workers,
        "machine": first.get("machine"),
        "commit": first.get("commit"),
        "telegrad_version": first.get("telegrad_version"),
        "mixed_origins": origins if len(origins) > 1 else [],
        "metric": known.metric if known else None,
        "higher_is_better": known.higher_is_better if known else None,
        "target": target.value,
        "target_rule": target.rule,
        "baseline": target.baseline,
        "parameters": next((run.parameters for run in runs if run.parameters), None),
        "complete": len(rows) == len(experiment.methods) and not any(row["unfinished_runs"] for row in rows),
        "title": experiment.title,
        "results": rows,
    }


def alive(runs: Iterable[FinishedRun]) -> list[FinishedRun]:
    """Those of the runs that did not diverge."""
    return [run for run in runs if not run.diverged]


def _row(
    experiment: Experiment,
    entry: MethodEntry,
    own: list[FinishedRun],
    lr: float | None,
    there: list[FinishedRun],
    target: float | None,
) -> dict[str, Any]:
    good = alive(there)
    searched = searched_runs(experiment, entry, own)
    to_search = experiment.searches_of(entry) - len(searched)
    metrics = [run.final("test") for run in good]
    reached = [first_reaching(run, target) for run in there]
    steps = _mean(run.records[-1]["step"] for run in good)
    bits = {name: _mean(run.records[-1][name] for run in good) for name in _BITS}
    seconds, encode = _mean(run.seconds_per_step for run in good), _mean(run.encode_seconds_per_step for run in good)
    parameters = next((run.parameters for run in good), None)
    sent = bits["bits_up_per_worker"]
    return {
        "method": entry.spec,
        "label": entry.label,
        "lr": lr,
        "seeds": [run.seed for run in there],
        "metric_mean": _mean(metrics),
        "metric_std": statistics.stdev(metrics) if len(metrics) > 1 else None,
        "validation_mean": _mean(run.final("validation") for run in good),
        "steps": None if steps is None else round(steps),
        **bits,
        "steps_to_target": _mean(record and record["step"] for record in reached),
        "bits_to_target": _mean(record and record["bits_up_per_worker"] for record in reached),
        "paper_bits_to_target": _mean(record and record["paper_bits_up_per_worker"] for record in reached),
        "seconds_per_step": seconds,
        "encode_seconds_per_step": encode,
        "encode_share": encode / seconds if seconds and encode is not None else None,
        "compression_ratio": 32 * parameters * steps / sent if parameters and steps and sent else None,
        "diverged": bool(own) and lr is None and to_search <= 0,
        "diverged_seeds": [run.seed for run in there if run.diverged],
        "lr_at_edge": lr is not None and len(searched) > 1 and lr in (min(searched), max(searched)),
        "searched": [
            {"lr": value, "validation": None if run.diverged else run.final("validation"), "diverged": run.diverged}
            for value, run in sorted(searched.items())
        ],
        "unfinished_runs": _unfinished(experiment, to_search, lr, there),
        "skipped_steps": sum(run.ledger["skipped_steps"] for run in good if run.ledger),
        "mean_level": _mean_level(good),
        "uncompressed": is_uncompressed(entry),
        "bits_up_by_field": _by_field(good, "up"),
        "bits_down_by_field": _by_field(good, "down"),
    }


def _unfinished(experiment: Experiment, to_search: int, lr: float | None, there: list[FinishedRun]) -> int:
    if to_search > 0:
        return to_search + len(experiment.seeds) - 1
    return 0 if lr is None else len(experiment.seeds) - len(there)


def _by_field(runs: Sequence[FinishedRun], direction: str) -> dict[str, float]:
    """Bits of a worker by field, mean over workers and seeds."""
    total: Counter[str] = Counter()
    accounts = [account for run in runs if run.ledger for account in run.ledger[direction]]
    for account in accounts:
        total.update(account)
    return {name: total[name] / len(accounts) for name in sorted(total) if total[name]}


def _mean_level(runs: Sequence[FinishedRun]) -> float | None:
    """The mean level of the MLMC messages that say theirs; None where none did."""
    levels: Counter[int] = Counter()
    for run in runs:
        levels.update({int(level): count for level, count in (run.ledger or {"levels": {}})["levels"].items()})
    total = sum(levels.values())
    return sum(level * count for level, count in levels.items()) / total if total else None


def _mean(values: Iterable[Any]) -> float | None:
    """The mean; None for no values, or where one is missing or not finite."""
    numbers = list(values)
    if not numbers or any(number is None or not math.isfinite(number) for number in numbers):
        return None
    return statistics.fmean(numbers)
