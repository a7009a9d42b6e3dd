"""Runs what is missing of experiments: learning rates with the first seed, then the other seeds at the best one."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from telegrad.errors import ConfigError, DataError, DivergedError, SpecError, TelegradWarning
from telegrad.lab import config
from telegrad.lab.experiment import Experiment
from telegrad.lab.finished_run import FinishedRun
from telegrad.lab.plan import Cell, Left, left, missing
from telegrad.lab.progress import Watch
from telegrad.lab.provenance import provenance
from telegrad.lab.records import RunDirectory
from telegrad.random import Key
from telegrad.runtime.simulate import simulate
from telegrad.runtime.snapshots import Snapshots
from telegrad.runtime.training import Result
from telegrad.workloads import Task, workload_of

__all__ = ["Job", "jobs_below", "run_experiment", "run_queue", "seconds_of"]

_UNITS = {"s": 1, "m": 60, "h": 3600}
_FIRST_STEPS = 5


@dataclass(frozen=True)
class Job:
    """An experiment of a queue: its name, its configuration and where its records are kept."""

    name: str
    experiment: Experiment
    directory: RunDirectory


def jobs_below(folder: Path, data: str | None, out: Path) -> list[Job]:
    """A job for every YAML file in `folder` and below it, in the order of priority, then of name.

    Records go to `out`, in a run directory named after the file. Raises `ConfigError` where there is no file, where two
    have the same name, and for a file that is no experiment.
    """
    # A config.yaml belongs to a run directory.
    files = sorted(file for file in folder.rglob("*.yaml") if file.name != "config.yaml")
    if not files:
        raise ConfigError(f"{folder} holds no experiment: a file such as {folder / 'digits.yaml'} is wanted")
    names = [file.stem for file in files]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two experiments in {folder} are called {name}.yaml; rename one")
    found = [(file.stem, config.load(file)) for file in files]
    found.sort(key=lambda pair: pair[1].priority)
    return [
        Job(name, one if data is None else one.model_copy(update={"data": data}), RunDirectory.open(out / name, one))
        for name, one in found
    ]


def seconds_of(budget: str) -> float:
    """The seconds of a time such as 90s, 60m or 1.5h. Raises `ConfigError`."""
    unit = _UNITS.get(budget[-1:])
    try:
        seconds = float(budget[:-1]) * unit if unit else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"--budget {budget}: a time is wanted, for example 90s, 60m or 1.5h")
    return seconds


def run_experiment(
    experiment: Experiment, directory: RunDirectory, watch: Watch, train: Callable[..., Result] | None = None
) -> dict[str, Any]:
    """Do what is not yet done of one experiment and return its summary; see `run_queue`."""
    return run_queue([Job("", experiment, directory)], watch, train)[0]


def run_queue(
    jobs: Sequence[Job],
    watch: Watch,
    train: Callable[..., Result] | None = None,
    budget: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[dict[str, Any]]:
    """Do what is not yet done of the `jobs`, keep each run as it finishes, and return their summaries.

    The search for learning rates comes first, then the second seed of every method, then the third, so that whenever
    this ends, all methods are known equally well. Of several jobs, those of a lower priority go first, and a further
    seed waits as long as a priority higher by one. The learning rate is chosen by the final
    validation metric; the test metric is only reported. A run that diverges is recorded as diverged; a method whose
    every learning rate diverges is reported so, and the rest goes on. When this is interrupted, the records of all
    finished runs are up to date.

    `budget` (seconds of `clock`): no run begins that would end after it, by the time that runs of its job took so far;
    a first run that turns out to be too long is given up within its first steps. `train` stands in for `simulate`.
    """
    began, too_long = clock(), dict[str, float]()
    watch.begin(sum(len(job.directory.runs) for job in jobs), _left(jobs))
    every = jobs
    try:
        while True:
            remaining = math.inf if budget is None else budget - (clock() - began)
            found = _next(jobs, remaining, too_long)
            if found is None:
                break
            job, cell = found
            name = f"{job.name}: {cell.entry.label}" if job.name else cell.entry.label
            watch.start(name, cell.lr, cell.seed, job.experiment.steps)
            patience = _Patience(watch, job.experiment.steps, remaining, clock)
            try:
                run = _trained(job, cell, patience.record, train)
            except _TooLongError as error:
                too_long[job.name] = error.seconds
                continue
            except DataError as error:
                if len(jobs) == 1:
                    raise
                warnings.warn(f"{job.name} is left out: {error}", TelegradWarning, stacklevel=2)
                jobs = [other for other in jobs if other is not job]
                continue
            job.directory.add(run)
            watch.finish(run, _left(jobs))
    finally:
        summaries = [job.directory.rebuild() for job in every]
    return summaries


def _left(jobs: Sequence[Job]) -> Left:
    return sum((left(job.experiment, job.directory.runs) for job in jobs), Left(0, 0))


def _next(jobs: Sequence[Job], remaining: float, too_long: dict[str, float]) -> tuple[Job, Cell] | None:
    """The most informative run that fits into the `remaining` seconds."""
    candidates = [(job, cell) for job in jobs for cell in missing(job.experiment, job.directory.runs)]
    candidates.sort(key=lambda pair: (pair[0].experiment.priority + pair[1].stage, pair[1].stage))
    if remaining <= 0:
        return None
    return next((pair for pair in candidates if _expected(pair[0], too_long) <= remaining), None)


def _expected(job: Job, too_long: dict[str, float]) -> float:
    """Seconds that a run of the job trained so far, in the mean, and a quarter for evaluations; 0 where none did."""
    trained = [run.seconds_per_step for run in job.directory.runs if run.seconds_per_step is not None]
    known = 1.25 * job.experiment.steps * statistics.fmean(trained) if trained else 0.0
    return max(known, too_long.get(job.name, 0.0))


class _TooLongError(Exception):
    """A run would not end in the time that is left; `seconds` is what it would take."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _Patience:
    """Gives a run up whose first steps show that it would not end in the `remaining` seconds."""

    def __init__(self, watch: Watch, steps: int, remaining: float, clock: Callable[[], float]) -> None:
        self.watch, self.steps, self.remaining, self.clock = watch, steps, remaining, clock
        self.began: tuple[float, int] | None = None

    def record(self, record: dict[str, Any]) -> None:
        """Stands in for `watch.record`. The first steps, which compile and load, do not count."""
        now, step = self.clock(), record["step"]
        if step >= _FIRST_STEPS and self.began is None:
            self.began = now, step
        elif self.began is not None and step <= 2 * _FIRST_STEPS:
            seconds = (now - self.began[0]) / (step - self.began[1]) * self.steps
            if seconds > self.remaining:
                raise _TooLongError(seconds)
        self.watch.record(record)


def _trained(
    job: Job, cell: Cell, progress: Callable[[dict[str, Any]], None], train: Callable[..., Result] | None
) -> FinishedRun:
    experiment, entry = job.experiment, cell.entry
    names: dict[str, Any] = {
        "label": entry.label,
        "spec": entry.spec,
        "lr": cell.lr,
        "seed": cell.seed,
        "phase": cell.phase,
        "provenance": provenance(),
    }
    try:
        task, settings = _task(experiment.workload, experiment.data), experiment.settings_of(entry)
        if train is None:
            train = simulate
            settings["snapshots"] = Snapshots(job.directory.under_way(entry.label, cell.lr, cell.seed))
        result = train(task, entry.spec, lr=cell.lr, seed=cell.seed, progress=progress, **settings)
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
    return workload_of(workload).load(None if data is None else Path(data), Key())
