"""What is still to do of an experiment: the search for learning rates, then the seeds, one round after the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from telegrad.lab.experiment import Experiment, MethodEntry
from telegrad.lab.finished_run import FinishedRun
from telegrad.lab.summary import best_lr, searched_runs

__all__ = ["Cell", "Left", "left", "missing", "next_rate"]

_WIDER = 3.0  # the factor to the next rate where the grid has only one


@dataclass(frozen=True)
class Cell:
    """A run to do. `stage` is 0 for a search, and for the i-th seed i."""

    entry: MethodEntry
    lr: float
    seed: int
    stage: int

    @property
    def phase(self) -> str:
        """search or repeat, as records call it."""
        return "repeat" if self.stage else "search"


@dataclass(frozen=True)
class Left:
    """What is left to do: runs, and their steps together."""

    runs: int
    steps: int

    def __add__(self, other: Left) -> Left:
        return Left(self.runs + other.runs, self.steps + other.steps)


def missing(experiment: Experiment, runs: Iterable[FinishedRun]) -> list[Cell]:
    """The runs that can be done now, in the order of the configuration.

    A method whose search goes on has one, its next learning rate; a method whose search is over has those seeds at its
    best rate that are not on record; a method that diverged at every rate has none.
    """
    runs, cells = list(runs), []
    for entry in experiment.methods:
        searched = searched_runs(experiment, entry, runs)
        rate = next_rate(experiment.lrs_of(entry), experiment.tuning_runs, searched)
        if rate is not None:
            cells.append(Cell(entry, rate, experiment.seeds[0], 0))
            continue
        lr = best_lr(list(searched.values()))
        there = {run.seed for run in runs if run.label == entry.label and run.lr == lr}
        cells += [
            Cell(entry, lr, seed, stage)
            for stage, seed in enumerate(experiment.seeds)
            if lr is not None and seed not in there
        ]
    return cells


def left(experiment: Experiment, runs: Iterable[FinishedRun]) -> Left:
    """What is left to do of an experiment, as far as can be known now."""
    runs, count = list(runs), 0
    cells = missing(experiment, runs)
    for entry in experiment.methods:
        to_search = experiment.searches_of(entry) - len(searched_runs(experiment, entry, runs))
        if to_search > 0:
            count += to_search + len(experiment.seeds) - 1
        else:
            count += sum(cell.entry is entry for cell in cells)
    return Left(count, count * experiment.steps)


def next_rate(grid: Sequence[float], total: int | None, searched: Mapping[float, FinishedRun]) -> float | None:
    """The learning rate to try next: the grid first, ascending; then, up to `total` runs, wherever the best one points.

    Where the best is the least or the greatest rate tried, the grid is widened there by its own factor; otherwise the
    best one's better neighbour and the best enclose the next, their geometric mean. Where all diverged, lower; where
    all others end alike, higher: a model that has learnt nothing wants longer steps. None when the search is over.
    """
    untried = [rate for rate in grid if rate not in searched]
    if untried:
        return untried[0]
    if total is None or len(searched) >= total:
        return None
    rates = sorted(searched)
    alive = [run for run in searched.values() if not run.diverged]
    alike = len(alive) > 1 and len({run.final("validation") for run in alive}) == 1
    best = max(run.lr for run in alive) if alike else best_lr(alive)
    place = 0 if best is None else rates.index(best)
    if place == 0:
        found = rates[0] / (rates[1] / rates[0] if len(rates) > 1 else _WIDER)
    elif place == len(rates) - 1:
        found = rates[-1] * (rates[-1] / rates[-2])
    else:
        below, above = rates[place - 1], rates[place + 1]
        better = best_lr([searched[below], searched[above]]) or below
        found = math.sqrt(rates[place] * better)
    return float(f"{found:.3g}")
