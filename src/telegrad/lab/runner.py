"""Runs an experiment's grid: every learning rate with the first seed, then the other seeds at the best one."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Callable
from functools import cache, lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from telegrad.errors import DivergedError, SpecError
from telegrad.lab.config import Experiment, MethodEntry
from telegrad.lab.progress import Watch
from telegrad.lab.records import FinishedRun, RunDirectory
from telegrad.lab.summary import best_lr
from telegrad.random import Key
from telegrad.runtime.simulate import simulate
from telegrad.runtime.training import Result
from telegrad.spec import build
from telegrad.workloads.base import Task

__all__ = ["run_experiment"]


def run_experiment(
    experiment: Experiment, directory: RunDirectory, watch: Watch, train: Callable[..., Result] | None = None
) -> dict[str, Any]:
    """Do what is not yet done of the grid, keep each run as it finishes, and return the summary.

    The learning rate is chosen by the final validation metric; the test metric is only reported. A run that diverges is
    recorded as diverged; a method whose every learning rate diverges is reported so, and the rest goes on. When this is
    interrupted, the records of all finished runs are up to date. `train` stands in for `simulate`.
    """
    repeats = len(experiment.seeds) - 1
    run = partial(_perform, experiment, directory=directory, watch=watch, train=train or simulate)
    planned = sum(len(experiment.lrs_of(entry)) + repeats for entry in experiment.methods)
    watch.begin(planned, len(directory.runs), experiment.steps)
    try:
        for entry in experiment.methods:
            lrs = experiment.lrs_of(entry)
            searched = [run(entry, lr, experiment.seeds[0], "search") for lr in lrs]
            lr = best_lr(searched)
            if lr is None:
                watch.drop(repeats)
                continue
            for seed in experiment.seeds[1:]:
                run(entry, lr, seed, "repeat")
    finally:
        summary = directory.rebuild()
    return summary


def _perform(
    experiment: Experiment,
    entry: MethodEntry,
    lr: float,
    seed: int,
    phase: str,
    *,
    directory: RunDirectory,
    watch: Watch,
    train: Callable[..., Result],
) -> FinishedRun:
    """The run of a method at a learning rate and seed: the one on record, or a new one, kept once it is finished."""
    recorded = directory.find(entry.label, lr, seed)
    if recorded is not None:
        return recorded
    watch.start(entry.label, lr, seed)
    run = _trained(experiment, entry, lr, seed, phase, watch, train)
    directory.add(run)
    watch.finish(run)
    return run


def _trained(
    experiment: Experiment,
    entry: MethodEntry,
    lr: float,
    seed: int,
    phase: str,
    watch: Watch,
    train: Callable[..., Result],
) -> FinishedRun:
    names: dict[str, Any] = {
        "label": entry.label,
        "spec": entry.spec,
        "lr": lr,
        "seed": seed,
        "phase": phase,
        "provenance": provenance(),
    }
    try:
        task, settings = _task(experiment.workload, experiment.data), experiment.settings_of(entry)
        result = train(task, entry.spec, lr=lr, seed=seed, progress=watch.record, **settings)
    except DivergedError as error:
        return FinishedRun(
            **names,
            diverged=True,
            records=error.records,
            ledger=None,
            metric=None,
            higher_is_better=None,
            parameters=None,
            seconds_per_step=None,
            encode_seconds_per_step=None,
        )
    except SpecError as error:
        # Only now does the method meet the model: a count k > d, or a method that does not fit the setting.
        raise SpecError(f"{entry.label}: {error}") from error
    last = result.records[-1]
    return FinishedRun(
        **names,
        diverged=not (math.isfinite(last["validation"]) and math.isfinite(last["test"])),
        records=result.records,
        ledger=result.ledger.to_dict(),
        metric=result.metric,
        higher_is_better=result.higher_is_better,
        parameters=sum(parameter.numel() for parameter in result.parameters.values()),
        seconds_per_step=result.seconds_per_step,
        encode_seconds_per_step=result.encode_seconds_per_step,
    )


@lru_cache(maxsize=1)
def _task(workload: str, data: str | None) -> Task:
    """The workload with its data, read once for all runs; every seed has the same split, as when `simulate` reads
    it.
    """
    return build(workload, "workload").load(None if data is None else Path(data), Key())


@cache
def provenance() -> dict[str, Any]:
    """On what this runs: processor and versions (no host name, no path), and the working directory's commit."""
    return {
        "machine": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "commit": _commit(),
        "telegrad_version": _version(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _commit() -> str | None:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _version() -> str | None:
    try:
        return metadata.version("telegrad")
    except metadata.PackageNotFoundError:
        return None
