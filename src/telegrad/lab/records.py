"""The run directory: one file a finished run, and the records rebuilt from them.

    config.yaml         the resolved configuration, without the folder of the data
    finished/           one JSON file a finished run
    finished.jsonl.gz   finished runs in one compressed file, as `telegrad merge` writes them
    under-way/          the state of a run that goes on, or that was ended
    metrics.jsonl       a line an evaluation
    ledger.json         the account of bits of every finished run
    summary.json        a row a method (see `telegrad.lab.summary`)

The metrics, the ledger and the summary are rebuilt from the finished runs.

Every file appears whole or not at all, so an interruption at any instant neither repeats nor loses a finished run.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from telegrad.errors import ConfigError, DataError
from telegrad.files import write_atomic
from telegrad.lab import config
from telegrad.lab.experiment import Experiment
from telegrad.lab.finished_run import FinishedRun
from telegrad.lab.summary import summarise

__all__ = ["PACK", "RunDirectory", "check_same", "to_json", "to_pack"]

PACK = "finished.jsonl.gz"
_FREE = ("title", "priority", "methods", "seeds", "lrs", "tuning_runs", "target", "data")


class RunDirectory:
    """A run directory on disk and the finished runs in it."""

    def __init__(self, path: Path, experiment: Experiment, runs: dict[str, FinishedRun]) -> None:
        self.path, self.experiment, self._runs = path, experiment, runs

    @classmethod
    def open(cls, path: Path, experiment: Experiment) -> RunDirectory:
        """Begin a run directory, or resume one, also with methods, seeds or learning rates added.

        Raises `ConfigError` where it holds something else, or runs that another setting made.
        """
        recorded = path / "config.yaml"
        kept = experiment.model_copy(update={"data": None})
        if recorded.exists():
            there = config.load(recorded)
            if _read_finished(path):
                check_same(there, experiment, str(path))
            if there != kept:
                write_atomic(recorded, config.to_yaml(kept))
        elif path.exists() and (not path.is_dir() or any(file.suffix != ".tmp" for file in path.iterdir())):
            raise ConfigError(f"{path} exists and is no run directory; name a new one with --out")
        else:
            path.mkdir(parents=True, exist_ok=True)
            write_atomic(recorded, config.to_yaml(kept))
        return cls(path, experiment, _read_finished(path))

    @classmethod
    def load(cls, path: Path) -> RunDirectory:
        """Read the records of a run directory. Raises `DataError` where there are none."""
        hint = "write for example `telegrad report runs/digits-1a2b3c4d`"
        if not path.is_dir():
            raise DataError(f"{path} is not a folder; a run directory is wanted: {hint}")
        if not (path / "config.yaml").exists():
            raise DataError(f"{path} is no run directory: it has no config.yaml; {hint}")
        try:
            experiment = config.load(path / "config.yaml")
        except ConfigError as error:
            raise DataError(f"{path} is no run directory of this version: {error}") from None
        runs = _read_finished(path)
        if not runs:
            raise DataError(
                f"{path} holds no finished run; finish one with `telegrad run {path / 'config.yaml'} --out {path}`"
            )
        return cls(path, experiment, runs)

    def find(self, label: str, lr: float, seed: int) -> FinishedRun | None:
        """The finished run of a method at a learning rate and seed, if there is one."""
        return self._runs.get(_file_name(label, lr, seed))

    def under_way(self, label: str, lr: float, seed: int) -> Path:
        """Where the state of a run is kept while it trains."""
        return self.path / "under-way" / Path(_file_name(label, lr, seed)).with_suffix(".pt").name

    def add(self, run: FinishedRun) -> None:
        """Keep a finished run, and nothing of the time when it was under way."""
        name = _file_name(run.label, run.lr, run.seed)
        text = to_json(dataclasses.asdict(run))
        (self.path / "finished").mkdir(exist_ok=True)
        write_atomic(self.path / "finished" / name, text)
        self._runs[name] = _from_text(text)  # as a resumed experiment would read it
        self.under_way(run.label, run.lr, run.seed).unlink(missing_ok=True)
        with suppress(OSError):  # not there, or not empty
            (self.path / "under-way").rmdir()

    @property
    def runs(self) -> list[FinishedRun]:
        """The finished runs of the configured methods, in its order, whatever the order they were run in."""
        place = {entry.label: i for i, entry in enumerate(self.experiment.methods)}
        seed = {seed: i for i, seed in enumerate(self.experiment.seeds)}
        known = [run for run in self._runs.values() if run.label in place and run.seed in seed]
        return sorted(known, key=lambda run: (place[run.label], run.lr, seed[run.seed]))

    def rebuild(self) -> dict[str, Any]:
        """Write metrics.jsonl, ledger.json and summary.json anew; the summary is returned."""
        runs = self.runs
        summary = summarise(self.experiment, runs)
        names = [
            {"method": run.label, "spec": run.spec, "lr": run.lr, "seed": run.seed, "phase": run.phase} for run in runs
        ]
        lines = [to_json(name | record) for name, run in zip(names, runs, strict=True) for record in run.records]
        ledgers = [name | run.ledger for name, run in zip(names, runs, strict=True) if run.ledger is not None]
        write_atomic(self.path / "metrics.jsonl", "".join(line + "\n" for line in lines))
        write_atomic(self.path / "ledger.json", to_json({"runs": ledgers}, indent=1))
        write_atomic(self.path / "summary.json", to_json(summary, indent=2))
        return summary


def to_json(value: Any, indent: int | None = None) -> str:
    """Valid JSON: NaN and infinity, which JSON does not know, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_pack(runs: Iterable[FinishedRun]) -> bytes:
    """Finished runs as one compressed file, the same bytes for the same runs."""
    lines = sorted(to_json(dataclasses.asdict(run)) for run in runs)
    return gzip.compress("".join(line + "\n" for line in lines).encode(), mtime=0)


def _file_name(label: str, lr: float, seed: int) -> str:
    # The readable part may coincide for two labels; the hash does not.
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-.")[:60]
    return f"{readable}-{hashlib.sha256(label.encode()).hexdigest()[:8]}-lr{lr!r}-seed{seed}.json"


def _from_text(text: str) -> FinishedRun:
    return FinishedRun(**json.loads(text))


def _read_finished(path: Path) -> dict[str, FinishedRun]:
    """The runs by file name. A run in a file of its own goes before the same one in the pack."""
    found = {}
    for file in (path / PACK, *sorted((path / "finished").glob("*.json"))):
        if file.name == PACK and not file.exists():
            continue
        try:
            lines = _unpacked(file) if file.name == PACK else [file.read_text(encoding="utf-8")]
            for run in map(_from_text, lines):
                found[_file_name(run.label, run.lr, run.seed)] = run
        except (ValueError, TypeError, OSError, EOFError, zlib.error):
            raise DataError(
                f"{file} is no record of this version of telegrad; delete it, and the run is done again"
            ) from None
    return found


def _unpacked(file: Path) -> list[str]:
    lines = gzip.decompress(file.read_bytes()).decode().split("\n")
    if lines.pop() or not lines:  # each line has an end, and there is at least one
        raise ValueError("cut off")
    return lines


def check_same(recorded: Experiment, wanted: Experiment, where: str) -> None:
    """Refuse to join runs that different settings made.

    Methods, seeds, learning rates, title, priority, target and data folder may differ; what both have must agree.
    """
    there, here = recorded.resolved(), wanted.resolved()
    differing = {name: (there[name], here[name]) for name in here if name not in _FREE and here[name] != there[name]}
    entries = {entry.label: entry for entry in wanted.methods}
    for entry in recorded.methods:
        if entry.label in entries:
            own, new = (
                one.model_dump(exclude={"lrs", "label"}, exclude_none=True) for one in (entry, entries[entry.label])
            )
            if own != new:
                differing[f"the method {entry.label!r}"] = (own, new)
    if differing:
        details = "; ".join(f"{name} ({old!r} there, {new!r} asked for)" for name, (old, new) in differing.items())
        raise ConfigError(
            f"{where} holds runs of another configuration, which differs in {details}; "
            "name a new directory with --out, or repeat the configuration recorded there to resume"
        )
