"""What a terminal shows of runs under way, and what a pipe gets in its place."""

import fcntl
import io
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from rich.console import Console

from telegrad.lab.config import parse
from telegrad.lab.live_table import LiveTable
from telegrad.lab.plan import Left
from telegrad.lab.records import RunDirectory
from telegrad.lab.runner import run_experiment

METHODS = ["sgd(identity)", "sgd(mlmc(stopk(s=0.01)))"]
EXPERIMENT = {"methods": METHODS, "lrs": [0.1, 0.3, 1.0], "seeds": 3, "workers": 2, "steps": 20, "evaluate_every": 5}
COLUMNS = ["method", "rate", "seed", "step", "loss", "validation", "bits up", "time left"]


def shown(table, height=40):
    """The lines of a table on a screen of 120 columns, without colours and empty lines."""
    screen = io.StringIO()
    table.console.height = height
    Console(file=screen, width=120, height=height).print(table.view())
    return [line.strip() for line in screen.getvalue().splitlines() if line.strip()]


def cells(line):
    return re.split(r" {2,}", line)


def record(step, loss):
    return {"step": step, "train_loss": loss, "validation": 0.25, "test": 0.2, "bits_up_per_worker": 12_300.0 * step}


def test_a_run_under_way_has_its_figures_and_its_time_left():
    table = LiveTable(Console(force_terminal=True, file=io.StringIO()))
    table.begin(3, Left(2, 40))
    assert shown(table)[-1].startswith("3 of 5 runs finished")
    table.start("[bold]", 0.05, 7, 20)
    seconds = itertools.count()
    table.progress.get_time = lambda: float(next(seconds))  # a second between any two looks
    for step in range(1, 6):
        table.record(record(step, 1.5))
    *_, row, earlier, overall = shown(table)
    assert cells(shown(table)[0]) == COLUMNS
    assert cells(row)[:7] == ["[bold]", "0.05", "7", "5/20", "1.50", "0.2500", "61.5 kbit"]
    assert re.fullmatch(r"0:00:\d\d", cells(row)[7])
    assert earlier == "and 3 earlier"
    assert "12%" in overall, "5 of 40 steps"


def test_all_runs_are_counted_and_the_newest_shown(tmp_path, simulate):
    simulate.diverges = lambda method, lr, seed: method == METHODS[0]
    experiment, table = parse(EXPERIMENT), LiveTable(Console(force_terminal=True, file=io.StringIO()))
    with table:
        run_experiment(experiment, RunDirectory.open(tmp_path, experiment), table)
    overall = table.progress.tasks[0]
    assert overall.completed == overall.total == 8 * 20
    rows = [cells(line) for line in shown(table) if line.startswith("sgd")]
    assert len(rows) == 8, "three rates each; then two more seeds of the method that does not diverge"
    assert [row[0] for row in rows if row[7] == "diverged"] == 3 * METHODS[:1]
    assert rows[-1][1:4] == ["1", "2", "20/20"]
    assert rows[-1][7] == "finished"
    few = shown(table, height=10)
    assert [cells(line)[1:3] for line in few if line.startswith("sgd")] == [row[1:3] for row in rows[-4:]]
    assert few[-2] == "and 4 earlier"
    assert few[-1].startswith("8 of 8 runs finished")


CONFIG = """\
workload: quadratic(d=64)
methods: ["sgd(identity)", "sgd(randk(k=0.5))"]
lrs: [0.1]
seeds: 1
workers: 2
steps: 40
"""


def told(command, folder, terminal):
    """What a command says on standard error, a pseudo-terminal of 100 columns or a pipe."""
    if not terminal:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stderr
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=its) as process:
        os.close(its)
        found = b""
        while True:
            try:
                more = os.read(ours, 1 << 16)
            except OSError:  # Linux says so where the other end is closed
                break
            if not more:
                break
            found += more
        assert process.wait() == 0, found.decode()
    os.close(ours)
    return found.decode()


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_the_command_renews_a_table_on_a_terminal_and_prints_lines_elsewhere(terminal, tmp_path):
    (tmp_path / "two.yaml").write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-m", "telegrad", "run", "two.yaml", "--out", "records"]
    text = told(command, tmp_path, terminal)
    if terminal:
        assert "\x1b[1A\x1b[2K" in text, "a line is gone back and erased"
        frame = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text[text.rindex("\x1b[1A\x1b[2K") :]).replace("\r", "")
        lines = [cells(line.strip()) for line in frame.splitlines() if line.strip()]
        assert lines[0] == COLUMNS
        rows = [line for line in lines if line[0].startswith("sgd")]
        assert [(row[0], row[1], row[3], row[7]) for row in rows] == [
            ("sgd(identity)", "0.1", "40/40", "finished"),
            ("sgd(randk(k=0.5))", "0.1", "40/40", "finished"),
        ]
        assert lines[-1][0].startswith("2 of 2 runs finished")
    else:
        assert "\x1b" not in text
        lines = [line for line in text.splitlines() if not line.startswith("telegrad compiles")]
        assert lines[0] == "2 runs of 40 steps to do"
        assert [line.split(",")[0] for line in lines[1:]] == ["[1/2] sgd(identity)", "[2/2] sgd(randk(k=0.5))"]
