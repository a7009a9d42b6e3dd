"""What the user sees while runs go on: progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from telegrad.lab.records import FinishedRun
from telegrad.lab.tables import bits, metric

__all__ = ["Bars", "Lines", "Watch", "watch_on"]


class Watch(Protocol):
    """Is told how the runs of an experiment go. `runs` counts runs; `steps` is the length of each."""

    def begin(self, runs: int, done: int, steps: int) -> None:
        """`runs` are planned, of which `done` were finished earlier."""

    def start(self, label: str, lr: float, seed: int) -> None:
        """A run starts."""

    def record(self, record: dict[str, Any]) -> None:
        """The run under way was evaluated."""

    def finish(self, run: FinishedRun) -> None:
        """The run under way is finished and kept."""

    def drop(self, runs: int) -> None:
        """`runs` planned runs will not take place, because their method diverged."""


def watch_on(console: Console) -> AbstractContextManager[Watch]:
    """Bars where the console is a terminal, lines where it is not."""
    return Bars(console) if console.is_terminal else nullcontext(Lines(console))


class Lines:
    """One plain line a finished run."""

    def __init__(self, console: Console) -> None:
        self.console, self.runs, self.done = console, 0, 0

    def begin(self, runs: int, done: int, steps: int) -> None:
        self.runs, self.done = runs, done
        plural = "" if runs - done == 1 else "s"
        self._print(
            f"{runs - done} run{plural} of {steps} steps to do" + (f", {done} finished earlier" if done else "")
        )

    def start(self, label: str, lr: float, seed: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None: ...

    def finish(self, run: FinishedRun) -> None:
        self.done += 1
        self._print(f"[{self.done}/{self.runs}] {describe(run)}")

    def drop(self, runs: int) -> None:
        self.runs -= runs

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class Bars:
    """A bar over all runs, with the time left, above a bar over the steps of the run under way."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self.steps = 1
        # Steps, not runs, drive the time left; the number of runs stands in the description.
        self.overall = self.progress.add_task("all runs", note="", total=None)
        self.current = self.progress.add_task("", note="", total=1, visible=False)
        self.lines = Lines(console)

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begin(self, runs: int, done: int, steps: int) -> None:
        self.steps, self.lines.runs, self.lines.done = steps, runs, done
        self.progress.update(self.overall, total=(runs - done) * steps)
        self._count()

    def start(self, label: str, lr: float, seed: int) -> None:
        self.progress.reset(self.current, total=self.steps, visible=True)
        self.progress.update(self.current, description=escape(f"{label}  lr {lr:g}  seed {seed}"), note="")

    def record(self, record: dict[str, Any]) -> None:
        before = self.progress.tasks[self.current].completed
        self.progress.update(self.current, completed=record["step"], note=f"validation {record['validation']:.4g}")
        self.progress.advance(self.overall, record["step"] - before)

    def finish(self, run: FinishedRun) -> None:
        left = self.steps - self.progress.tasks[self.current].completed
        self.progress.advance(self.overall, left)
        self.progress.update(self.current, visible=False)
        self.lines.finish(run)
        self._count()

    def drop(self, runs: int) -> None:
        self.lines.drop(runs)
        total = self.progress.tasks[self.overall].total or 0
        self.progress.update(self.overall, total=total - runs * self.steps)
        self._count()

    def _count(self) -> None:
        self.progress.update(self.overall, note=f"{self.lines.done} of {self.lines.runs} runs finished")


def describe(run: FinishedRun) -> str:
    """A finished run in a line."""
    name = f"{run.label}, lr {run.lr:g}, seed {run.seed}: "
    if run.diverged:
        return name + f"diverged after step {run.records[-1]['step'] if run.records else 0}"
    validation, test = (metric(run.final(split), run.metric) for split in ("validation", "test"))
    return name + f"{run.metric} {validation} (test {test}), {bits(run.records[-1]['bits_up_per_worker'])} up"
