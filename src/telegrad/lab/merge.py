"""Records of several machines joined into one set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from telegrad.errors import DataError
from telegrad.files import write_atomic
from telegrad.lab import config
from telegrad.lab.experiment import Experiment
from telegrad.lab.records import PACK, RunDirectory, check_same, to_pack

__all__ = ["merge", "run_directories"]


def run_directories(path: Path) -> dict[str, Path]:
    """The run directories at `path` by name: itself under the name "", or those just below it in which a run finished.

    Raises `DataError` where there is none.
    """
    if (path / "config.yaml").is_file():
        return {"": path}
    found = {file.parent.name: file.parent for file in sorted(path.glob("*/config.yaml"))}
    if not found:
        raise DataError(f"{path} is no run directory, and no folder of run directories: no config.yaml is there")
    begun = {name: one for name, one in found.items() if (one / PACK).exists() or any(one.glob("finished/*.json"))}
    if not begun:
        raise DataError(f"no run has finished in {path}")
    return begun


def merge(sources: Sequence[Path], out: Path) -> dict[str, int]:
    """Join run directories, or folders of them by the names of their subfolders, into `out`; what `out` holds is kept.

    Each becomes `config.yaml` and one compressed file of its finished runs. Where the same run (method, learning rate,
    seed) is in several, the one of the first source stays. Returns the number of runs by name. Raises `ConfigError`
    where two hold runs of different settings under one name, and writes nothing then.
    """
    places = [run_directories(source) for source in sources]
    if any(out.glob("config.yaml")) or any(out.glob("*/config.yaml")):
        places.insert(0, run_directories(out))
    joined = {}
    for name in dict.fromkeys(name for place in places for name in place):
        directories = [RunDirectory.load(place[name]) for place in places if name in place]
        for other in directories[1:]:
            check_same(directories[0].experiment, other.experiment, str(other.path))
        experiment = _united([directory.experiment for directory in directories])
        runs = {(run.label, run.lr, run.seed): run for directory in reversed(directories) for run in directory.runs}
        joined[name] = (experiment, list(runs.values()))
    for name, (experiment, every) in joined.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        write_atomic(out / name / PACK, to_pack(every))
        write_atomic(out / name / "config.yaml", config.to_yaml(experiment))
    return {name: len(every) for name, (_, every) in joined.items()}


def _united(experiments: Sequence[Experiment]) -> Experiment:
    """The first experiment with the methods, seeds and learning rates of all."""
    first = experiments[0]
    methods = {entry.label: entry for one in reversed(experiments) for entry in one.methods}
    order = dict.fromkeys(entry.label for one in experiments for entry in one.methods)
    searches = [one.tuning_runs for one in experiments if one.tuning_runs is not None]
    return first.model_copy(
        update={
            "methods": tuple(methods[label] for label in order),
            "seeds": tuple(dict.fromkeys(seed for one in experiments for seed in one.seeds)),
            "lrs": tuple(sorted({lr for one in experiments for lr in one.lrs})),
            "tuning_runs": max(searches, default=None),
        }
    )
