"""What the user sees while runs go on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from rich.console import Console

from telegrad.lab.finished_run import FinishedRun
from telegrad.lab.live_table import LiveTable
from telegrad.lab.plan import Left
from telegrad.lab.tables import bits, metric

__all__ = ["Lines", "Watch", "watch_on"]


class Watch(Protocol):
    """Is told how the runs of experiments go."""

    def begin(self, done: int, left: Left) -> None:
        """`done` runs were finished earlier, and these are left to do."""

    def start(self, label: str, lr: float, seed: int, steps: int) -> None:
        """A run of `steps` steps starts."""

    def record(self, record: dict[str, Any]) -> None:
        """The run under way was evaluated."""

    def finish(self, run: FinishedRun, left: Left) -> None:
        """The run under way is finished and kept, and these are left to do: fewer still where a method diverged."""


def watch_on(console: Console) -> AbstractContextManager[Watch]:
    """A live table where the console is a terminal, lines where it is not."""
    return LiveTable(console) if console.is_terminal else nullcontext(Lines(console))


class Lines:
    """One plain line a finished run."""

    def __init__(self, console: Console) -> None:
        self.console, self.done, self.left, self.name = console, 0, 0, ""

    def begin(self, done: int, left: Left) -> None:
        self.done, self.left = done, left.runs
        plural = "" if left.runs == 1 else "s"
        length = f" of {left.steps // left.runs} steps" if left.runs else ""
        self._print(f"{left.runs} run{plural}{length} to do" + (f", {done} finished earlier" if done else ""))

    def start(self, label: str, lr: float, seed: int, steps: int) -> None:
        self.name = label

    def record(self, record: dict[str, Any]) -> None: ...

    def finish(self, run: FinishedRun, left: Left) -> None:
        self.done, self.left = self.done + 1, left.runs
        self._print(f"[{self.done}/{self.done + self.left}] {describe(run, self.name)}")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def describe(run: FinishedRun, name: str) -> str:
    """A finished run in a line."""
    name = f"{name or run.label}, lr {run.lr:g}, seed {run.seed}: "
    if run.diverged:
        return name + f"diverged after step {run.records[-1]['step'] if run.records else 0}"
    validation, test = (metric(run.final(split), run.metric) for split in ("validation", "test"))
    return name + f"{run.metric} {validation} (test {test}), {bits(run.records[-1]['bits_up_per_worker'])} up"
