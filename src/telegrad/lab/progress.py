"""What the user sees while runs go on: progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from telegrad.lab.plan import Left
from telegrad.lab.records import FinishedRun
from telegrad.lab.tables import bits, metric

__all__ = ["Bars", "Lines", "Watch", "watch_on"]


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
    """Bars where the console is a terminal, lines where it is not."""
    return Bars(console) if console.is_terminal else nullcontext(Lines(console))


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

    def begin(self, done: int, left: Left) -> None:
        self.lines.done, self.lines.left = done, left.runs
        self.progress.update(self.overall, total=left.steps)
        self._count()

    def start(self, label: str, lr: float, seed: int, steps: int) -> None:
        self.steps = steps
        self.lines.start(label, lr, seed, steps)
        self.progress.reset(self.current, total=steps, visible=True)
        self.progress.update(self.current, description=escape(f"{label}  lr {lr:g}  seed {seed}"), note="")

    def record(self, record: dict[str, Any]) -> None:
        before = self.progress.tasks[self.current].completed
        self.progress.update(self.current, completed=record["step"], note=f"validation {record['validation']:.4g}")
        self.progress.advance(self.overall, record["step"] - before)

    def finish(self, run: FinishedRun, left: Left) -> None:
        self.progress.advance(self.overall, self.steps - self.progress.tasks[self.current].completed)
        self.progress.update(self.current, visible=False)
        self.progress.update(self.overall, total=self.progress.tasks[self.overall].completed + left.steps)
        self.lines.finish(run, left)
        self._count()

    def _count(self) -> None:
        done, left = self.lines.done, self.lines.left
        self.progress.update(self.overall, note=f"{done} of {done + left} runs finished")


def describe(run: FinishedRun, name: str) -> str:
    """A finished run in a line."""
    name = f"{name or run.label}, lr {run.lr:g}, seed {run.seed}: "
    if run.diverged:
        return name + f"diverged after step {run.records[-1]['step'] if run.records else 0}"
    validation, test = (metric(run.final(split), run.metric) for split in ("validation", "test"))
    return name + f"{run.metric} {validation} (test {test}), {bits(run.records[-1]['bits_up_per_worker'])} up"
