"""Running experiments for a command, in one process or in torchrun's, and showing what came of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from telegrad.cli.application import console

if TYPE_CHECKING:
    from telegrad.lab.experiment import Experiment

__all__ = ["perform", "perform_folder", "show"]


def perform(experiment: Experiment, out: Path | None, threads: int | None, distributed: bool) -> None:
    """Run an experiment, and show its summary."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if not distributed:
        _keep(experiment, out, None)
        return
    from telegrad.lab.distributed import end_process, group_of_processes, leading

    with group_of_processes() as (_, workers):
        experiment = experiment.model_copy(update={"workers": workers, "gradients": "loop"})
        with leading(experiment.workload, experiment.data) as train:
            if train is not None:
                _keep(experiment, out, train)
    end_process()


def _keep(experiment: Experiment, out: Path | None, train: Callable[..., Any] | None) -> None:
    """Run what is not yet on record in a run directory, and show its summary."""
    from rich.console import Console

    from telegrad.lab.config import digest
    from telegrad.lab.progress import watch_on
    from telegrad.lab.records import RunDirectory
    from telegrad.lab.report import write_report
    from telegrad.lab.runner import run_experiment
    from telegrad.lab.watching import Following

    name = re.sub(r"\W+", "-", experiment.workload.partition("(")[0])
    path = out or Path("runs") / f"{name}-{digest(experiment)}"
    directory = RunDirectory.open(path, experiment)
    try:
        with watch_on(Console(stderr=True)) as watch, Following(watch, directory.path) as following:
            run_experiment(experiment, directory, following, train)
        summary = write_report(directory)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; finished runs are kept in {path}; the same command resumes", err=True)
        raise typer.Exit(130) from None
    show(summary, path)
    if all(row["diverged"] for row in summary["results"]):
        typer.echo("error: every method diverged at every learning rate; try smaller ones (--lr, or `lrs:`)", err=True)
        raise typer.Exit(1)


def perform_folder(folder: Path, data: str | None, out: Path | None, budget: str | None, threads: int | None) -> None:
    """Do what is missing of the experiments in a folder, within the budget."""
    import torch
    from rich.console import Console

    from telegrad.lab.plan import left
    from telegrad.lab.progress import watch_on
    from telegrad.lab.runner import jobs_below, run_queue, seconds_of

    if threads is not None:
        torch.set_num_threads(threads)
    allowed = None if budget is None else seconds_of(budget)
    path = out or Path("runs") / folder.resolve().name
    jobs = jobs_below(folder, data, path)
    try:
        with watch_on(Console(stderr=True)) as watch:
            run_queue(jobs, watch, budget=allowed)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; finished runs are kept in {path}; the same command resumes", err=True)
        raise typer.Exit(130) from None
    for job in jobs:
        missing = left(job.experiment, job.directory.runs).runs
        typer.echo(f"{job.directory.path}: {len(job.directory.runs)} runs finished, {missing} to do")


def show(summary: dict[str, Any], path: Path) -> None:
    """Print the summary of a run directory, and where its report is."""
    from telegrad.lab.tables import footnotes, metric, summary_table

    out = console()
    out.print(summary_table(summary, out.width))
    goal = metric(summary["target"], summary["metric"])
    lines = [f"target: {goal} ({summary['target_rule']})", *footnotes(summary)]
    lines += [
        f"report: {path / 'report.html'}",
        *(f"plot:   {image}" for image in sorted(path.glob("metric-vs-*.png"))),
    ]
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
