"""The committed experiments, their records, and the pages made of them."""

from pathlib import Path

import pytest

from telegrad.lab import config
from telegrad.lab.records import PACK, RunDirectory, check_same
from telegrad.lab.results import rebuilt_pages

ROOT = Path(__file__).parents[2]
EXPERIMENTS = {file.stem: file for file in sorted((ROOT / "experiments").glob("*.yaml"))}
RECORDS = ROOT / "experiments" / "records"
RECORDED = sorted(path.name for path in RECORDS.glob("*")) if RECORDS.is_dir() else []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_complete_and_names_no_folder_of_data(name):
    experiment = config.load(EXPERIMENTS[name])
    assert experiment.title
    assert experiment.data is None
    assert len(experiment.seeds) >= 3
    # The same number of runs to find a learning rate for every method, the plain one included.
    assert experiment.tuning_runs is not None or len({experiment.lrs_of(entry) for entry in experiment.methods}) == 1
    assert any(entry.spec == "sgd(identity)" for entry in experiment.methods)


def test_each_figure_is_there_at_full_scale_with_a_twin_that_comes_first():
    for number in range(1, 7):
        full, twin = (config.load(EXPERIMENTS[f"figure{number}{end}"]) for end in ("", "-twin"))
        assert twin.priority < full.priority
        assert {entry.spec for entry in twin.methods} - {"sgd(importance(k=0.01))"} <= {
            entry.spec for entry in full.methods
        }


@pytest.mark.parametrize("name", RECORDED)
def test_records_are_of_an_experiment_and_of_its_setting(name):
    directory = RunDirectory.load(RECORDS / name)
    check_same(directory.experiment, config.load(EXPERIMENTS[name]), name)
    assert sorted(file.name for file in (RECORDS / name).iterdir()) == ["config.yaml", PACK]
    assert all(run.provenance["commit"] for run in directory.runs)


def test_records_are_small():
    assert sum(file.stat().st_size for file in RECORDS.rglob("*") if file.is_file()) < 20e6


@pytest.mark.skipif(not RECORDED, reason="there are no records")
def test_the_pages_are_what_the_records_make_of_them():
    for file, text in rebuilt_pages(RECORDS, ROOT / "docs" / "results").items():
        assert file.read_text(encoding="utf-8") == text, (
            f"telegrad report experiments/records --pages docs/results: {file}"
        )
