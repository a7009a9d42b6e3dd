import json
import statistics

import pytest
from rich.console import Console

from telegrad.lab.config import parse
from telegrad.lab.progress import Lines
from telegrad.lab.records import RunDirectory
from telegrad.lab.runner import run_experiment
from telegrad.lab.summary import summarise

PROMISED = [
    "method",
    "lr",
    "seeds",
    "metric_mean",
    "metric_std",
    "steps",
    "bits_up_per_worker",
    "bits_down_per_worker",
    "paper_bits_up_per_worker",
    "steps_to_target",
    "bits_to_target",
    "seconds_per_step",
    "encode_seconds_per_step",
]


@pytest.fixture
def directory(tmp_path, simulate):
    experiment = parse(
        {
            "methods": ["sgd(identity)", "sgd(randk(k=0.01))", "sgd(mlmc(stopk(s=0.01)))"],
            "lrs": [0.3],
            "workers": 2,
            "steps": 40,
            "evaluate_every": 5,
        }
    )
    directory = RunDirectory.open(tmp_path / "run", experiment)
    run_experiment(experiment, directory, Lines(Console(quiet=True)))
    return directory


def test_the_summary_keeps_its_promise(directory):
    summary = json.loads((directory.path / "summary.json").read_text())
    assert list(summary)[:4] == ["workload", "workers", "machine", "commit"]
    for result in summary["results"]:
        assert set(PROMISED) <= set(result)
        assert result["seeds"] == [0, 1, 2]
        assert result["steps"] == 40
    assert set(summary["machine"]) == {"cpu", "cores", "system", "python", "torch"}


def test_its_numbers_are_those_of_the_runs(directory):
    summary = json.loads((directory.path / "summary.json").read_text())
    lines = [json.loads(line) for line in (directory.path / "metrics.jsonl").read_text().splitlines()]
    ledgers = json.loads((directory.path / "ledger.json").read_text())["runs"]
    for result in summary["results"]:
        own = [line for line in lines if line["method"] == result["method"]]
        last = [line for line in own if line["step"] == 40]
        tests = [line["test"] for line in last]
        assert result["metric_mean"] == pytest.approx(statistics.fmean(tests), abs=1e-12)
        assert result["metric_std"] == pytest.approx(statistics.stdev(tests), abs=1e-12)
        assert result["bits_up_per_worker"] == statistics.fmean(line["bits_up_per_worker"] for line in last)
        # The records' bits are the ledger's, field by field.
        for ledger in (ledger for ledger in ledgers if ledger["method"] == result["method"]):
            assert sum(ledger["up"][0].values()) == result["bits_up_per_worker"]
        assert sum(result["bits_up_by_field"].values()) == result["bits_up_per_worker"]
        assert result["compression_ratio"] == pytest.approx(32 * 1000 * 40 / result["bits_up_per_worker"])


def test_the_target_is_95_percent_of_the_uncompressed_way_and_read_off_validation(directory):
    summary = directory.rebuild()
    plain = [run for run in directory.runs if run.label == "sgd(identity)"]
    start = statistics.median(run.records[0]["validation"] for run in plain)
    end = statistics.median(run.final("validation") for run in plain)
    assert summary["target"] == pytest.approx(start + 0.95 * (end - start))
    assert "uncompressed method, sgd(identity)" in summary["target_rule"]
    first = [next(record for record in run.records if record["validation"] >= summary["target"]) for run in plain]
    by_method = {result["method"]: result for result in summary["results"]}
    assert by_method["sgd(identity)"]["steps_to_target"] == statistics.fmean(record["step"] for record in first)
    assert by_method["sgd(identity)"]["bits_to_target"] == statistics.fmean(
        record["bits_up_per_worker"] for record in first
    )
    assert by_method["sgd(randk(k=0.01))"]["steps_to_target"] is None


def test_a_configured_target_is_taken(directory):
    experiment = directory.experiment.model_copy(update={"target": 0.2})
    summary = summarise(experiment, directory.runs)
    assert summary["target"] == 0.2
    assert summary["target_rule"] == "as configured"
    assert all(result["steps_to_target"] is not None for result in summary["results"])


def test_one_seed_has_no_standard_deviation(tmp_path, simulate):
    experiment = parse({"methods": ["sgd(identity)"], "lrs": [0.3], "seeds": 1, "workers": 2, "steps": 4})
    summary = run_experiment(experiment, RunDirectory.open(tmp_path / "run", experiment), Lines(Console(quiet=True)))
    assert summary["results"][0]["metric_std"] is None
    assert not summary["results"][0]["lr_at_edge"]


def test_records_are_rebuilt_alike_from_the_finished_runs(directory):
    names = ("metrics.jsonl", "ledger.json", "summary.json")
    before = {name: (directory.path / name).read_bytes() for name in names}
    for name in names:
        (directory.path / name).unlink()
    RunDirectory.load(directory.path).rebuild()
    assert {name: (directory.path / name).read_bytes() for name in names} == before


def test_no_host_name_and_no_path_is_recorded(directory):
    import platform

    text = (directory.path / "summary.json").read_text()
    assert str(directory.path) not in text
    assert platform.node() not in json.dumps(json.loads(text)["machine"])
