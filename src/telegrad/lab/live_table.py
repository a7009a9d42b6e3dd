"""What a terminal shows while runs go on: a table of the runs, the one under way last, above a bar over all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from telegrad.lab.finished_run import FinishedRun
from telegrad.lab.plan import Left
from telegrad.lab.tables import NOTHING, bits, number

__all__ = ["LiveTable"]

_LINES_BESIDE_ROWS = 6  # title, rules, the runs that are not shown, the bar
_FIGURES = ("rate", "seed", "step", "loss", "validation", "bits up", "time left")


@dataclass
class _Row:
    """A run, as far as it got; `state` stands where a run under way has its time left."""

    label: str
    lr: float
    seed: int
    steps: int
    step: int = 0
    loss: float | None = None
    validation: float | None = None
    bits_up: float | None = None
    state: str = NOTHING

    def take(self, record: dict[str, Any]) -> None:
        self.step, self.bits_up = record["step"], record["bits_up_per_worker"]
        self.loss, self.validation = record["train_loss"], record["validation"]

    def cells(self) -> tuple[str, ...]:
        step = f"{self.step}/{self.steps}"
        figures = number(self.loss), number(self.validation, 4), bits(self.bits_up)
        return self.label, f"{self.lr:g}", str(self.seed), step, *figures, self.state


class LiveTable:
    """A watch that renews a table of the runs: method, learning rate, seed, step, loss, metric, bits and time left.

    Bits and metric are those of the last evaluation. Where there are more runs than lines, the newest are shown.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rows: list[_Row] = []
        self.done, self.left = 0, 0
        # Steps, not runs, drive the time that is left.
        columns = (TextColumn("{task.description}"), BarColumn(24), TaskProgressColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console)
        self.overall = self.progress.add_task("", total=None)
        self.current = self.progress.add_task("", visible=False)
        self._live = Live(get_renderable=self.view, console=console, refresh_per_second=4)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begin(self, done: int, left: Left) -> None:
        self.done, self.left = done, left.runs
        self.progress.update(self.overall, total=left.steps)
        self._count()

    def start(self, label: str, lr: float, seed: int, steps: int) -> None:
        self.rows.append(_Row(label, lr, seed, steps))
        self.progress.reset(self.current, total=steps)

    def record(self, record: dict[str, Any]) -> None:
        row = self.rows[-1]
        self.progress.advance(self.overall, record["step"] - row.step)
        row.take(record)
        self.progress.update(self.current, completed=row.step)
        row.state = _time(self.progress.tasks[self.current].time_remaining)

    def finish(self, run: FinishedRun, left: Left) -> None:
        row = self.rows[-1]
        self.progress.advance(self.overall, row.steps - row.step)
        if run.records:
            row.take(run.records[-1])
        row.state = "diverged" if run.diverged else "finished"
        self.progress.update(self.overall, total=self.progress.tasks[self.overall].completed + left.steps)
        self.done, self.left = self.done + 1, left.runs
        self._count()

    def view(self) -> Group:
        """What is shown now."""
        shown = self.rows[-max(1, self.console.height - _LINES_BESIDE_ROWS) :]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("method", no_wrap=True, overflow="ellipsis")
        for name in _FIGURES:
            table.add_column(name, justify="right", no_wrap=True)
        for row in shown:
            table.add_row(*(Text(cell) for cell in row.cells()), style="dim" if row.state == "diverged" else "")
        earlier = self.done - sum(row.state in ("finished", "diverged") for row in shown)
        said = [Text(f"and {earlier} earlier", style="dim")] if earlier else []
        return Group(table, *said, self.progress)

    def _count(self) -> None:
        text = f"{self.done} of {self.done + self.left} runs finished"
        self.progress.update(self.overall, description=text)


def _time(seconds: float | None) -> str:
    return NOTHING if seconds is None or not math.isfinite(seconds) else str(timedelta(seconds=math.ceil(seconds)))
