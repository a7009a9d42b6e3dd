import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from telegrad.errors import ConfigError, DataError, SpecError
from telegrad.lab.config import parse
from telegrad.lab.progress import Lines
from telegrad.lab.records import RunDirectory
from telegrad.lab.runner import run_experiment

METHODS = ["sgd(identity)", "sgd(mlmc(stopk(s=0.01)))"]
EXPERIMENT = {"methods": METHODS, "lrs": [0.1, 0.3, 1.0], "seeds": 3, "workers": 2, "steps": 20, "evaluate_every": 5}
RUNS = 2 * (3 + 2)


def run(path, values=EXPERIMENT):
    experiment = parse(values)
    return run_experiment(experiment, RunDirectory.open(path, experiment), Lines(Console(quiet=True)))


def files(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def row(summary, method):
    return next(row for row in summary["results"] if row["method"] == method)


def test_every_rate_is_tried_with_the_first_seed_and_the_best_with_the_rest(tmp_path, simulate):
    summary = run(tmp_path)
    search = [(method, lr, 0) for method in METHODS for lr in (0.1, 0.3, 1.0)]
    # Round by round, so that all methods have as many seeds whenever it is interrupted.
    assert simulate.calls == search + [(method, 1.0, seed) for seed in (1, 2) for method in METHODS]
    assert simulate.settings[0]["batch_size"] == 16
    assert summary["complete"]
    phases = [json.loads(line)["phase"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert phases == (["search"] * 15 + ["repeat"] * 10) * 2


@pytest.mark.parametrize("at", range(1, RUNS + 1))
def test_an_interruption_in_any_run_neither_repeats_nor_loses_one(tmp_path, simulate, at):
    whole = run(tmp_path / "whole")
    simulate.calls.clear()
    simulate.interrupt_at = at
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken")
    assert len(simulate.calls) == at
    kept = json.loads((tmp_path / "broken" / "summary.json").read_text())
    assert not kept["complete"]
    assert len(list((tmp_path / "broken" / "finished").glob("*.json")) if at > 1 else []) == at - 1
    simulate.interrupt_at = None
    resumed = run(tmp_path / "broken")
    assert len(simulate.calls) == RUNS + 1
    assert sorted(set(simulate.calls)) == sorted(set(simulate.calls[: at - 1] + simulate.calls[at:]))
    assert resumed == whole
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    run(tmp_path / "broken")
    assert len(simulate.calls) == RUNS + 1


@pytest.mark.parametrize("at", range(1, 1 + RUNS + 4))
def test_an_interruption_while_writing_leaves_only_whole_files(tmp_path, simulate, monkeypatch, at):
    run(tmp_path / "whole")
    simulate.calls.clear()
    written = 0  # config.yaml, a file a run, three records

    def replace(self, target):
        nonlocal written
        written += 1
        if written == at:
            raise KeyboardInterrupt
        return original(self, target)

    original = Path.replace
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken")
    monkeypatch.undo()
    for file in (tmp_path / "broken").rglob("*.json"):
        json.loads(file.read_text())
    monkeypatch.setattr("telegrad.lab.runner.simulate", simulate)
    run(tmp_path / "broken")
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    assert len(simulate.calls) <= RUNS + 1


def test_the_rate_is_chosen_on_validation_and_never_on_test(tmp_path, simulate):
    def disagree(method, lr, seed, record):
        record["validation"] = {0.1: 0.5, 0.3: 0.9, 1.0: 0.7}[lr]
        record["test"] = {0.1: 0.99, 0.3: 0.2, 1.0: 0.8}[lr]

    simulate.bend = disagree
    summary = run(tmp_path)
    for result in summary["results"]:
        assert result["lr"] == 0.3
        assert result["metric_mean"] == pytest.approx(0.2)
        assert not result["lr_at_edge"]


def test_of_equal_rates_the_smaller_is_chosen_and_the_edge_is_told(tmp_path, simulate):
    simulate.bend = lambda method, lr, seed, record: record.update(validation=0.5)
    result = run(tmp_path)["results"][0]
    assert result["lr"] == 0.1
    assert result["lr_at_edge"]


def test_a_metric_that_falls_is_chosen_by_its_least(tmp_path, simulate, monkeypatch):
    simulate.bend = lambda method, lr, seed, record: record.update(
        validation={0.1: 3.0, 0.3: 1.0, 1.0: 2.0}[lr] + 9 * (record["step"] == 0)
    )
    inner = simulate.__call__

    def falling(*args, **kwargs):
        result = inner(*args, **kwargs)
        object.__setattr__(result, "higher_is_better", False)
        return result

    monkeypatch.setattr("telegrad.lab.runner.simulate", falling)
    summary = run(tmp_path)
    assert summary["results"][0]["lr"] == 0.3
    # From 10 at the start to 1 at the end, 95 % of the way is 10 - 0.95 * 9.
    assert summary["target"] == pytest.approx(1.45)


def test_diverged_rates_lose_and_the_rest_goes_on(tmp_path, simulate):
    simulate.diverges = lambda method, lr, seed: method == METHODS[0] or lr > 0.2
    summary = run(tmp_path)
    lost, kept = summary["results"]
    assert lost["diverged"]
    assert lost["lr"] is None
    assert lost["metric_mean"] is None
    assert lost["unfinished_runs"] == 0
    assert kept["lr"] == 0.1
    assert [entry["diverged"] for entry in kept["searched"]] == [False, True, True]
    assert summary["complete"]
    assert len(simulate.calls) == 3 + 3 + 2
    before = list(simulate.calls)
    assert run(tmp_path) == summary
    assert simulate.calls == before


def test_a_metric_that_is_not_finite_is_a_divergence_and_valid_json(tmp_path, simulate):
    simulate.diverges = lambda method, lr, seed: False
    simulate.bend = lambda method, lr, seed, record: record.update(
        {"validation": math.nan, "test": math.inf} if lr == 1.0 and record["step"] else {}
    )
    assert run(tmp_path)["results"][0]["lr"] == 0.3

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    for file in (tmp_path / "finished").iterdir():
        json.loads(file.read_text(), parse_constant=refuse)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_a_seed_that_diverges_is_told_and_reaches_no_target(tmp_path, simulate):
    simulate.diverges = lambda method, lr, seed: seed == 2 and method == METHODS[1]
    result = row(run(tmp_path), METHODS[1])
    assert result["seeds"] == [0, 1, 2]
    assert result["diverged_seeds"] == [2]
    assert result["metric_mean"] is not None
    assert result["steps_to_target"] is None
    assert result["bits_to_target"] is None


def test_a_spec_that_does_not_fit_the_model_names_its_method(tmp_path, simulate):
    def refuse(method, lr, seed, record):
        raise SpecError("topk(k=9999) exceeds the d = 1000 entries of the vector")

    simulate.bend = refuse
    with pytest.raises(SpecError, match=r"^sgd\(identity\): topk"):
        run(tmp_path)


def test_another_configuration_is_refused_with_what_differs(tmp_path, simulate):
    run(tmp_path)
    with pytest.raises(ConfigError, match=r"differs in steps \(20 there, 30 asked for\);") as caught:
        run(tmp_path, EXPERIMENT | {"steps": 30, "seeds": 4})
    assert "--out" in str(caught.value)
    assert "workers" not in str(caught.value)


def test_a_folder_of_something_else_is_left_alone(tmp_path, simulate):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is no run directory"):
        run(tmp_path)
    assert files(tmp_path) == {"thesis.txt": b"mine"}


def test_a_temporary_file_of_a_killed_process_is_no_obstacle(tmp_path, simulate):
    (tmp_path / ".config.yaml.1.tmp").write_text("work")
    assert run(tmp_path)["complete"]
    assert run(tmp_path)["complete"]


def test_a_damaged_record_is_named(tmp_path, simulate):
    run(tmp_path)
    damaged = next((tmp_path / "finished").iterdir())
    damaged.write_text("{")
    with pytest.raises(DataError, match=r"delete it") as caught:
        run(tmp_path)
    assert damaged.name in str(caught.value)


def test_labels_that_look_alike_in_a_file_name_stay_apart(tmp_path, simulate):
    entries = [{"spec": METHODS[0], "label": "a/b"}, {"spec": METHODS[1], "label": "a-b"}]
    summary = run(tmp_path, EXPERIMENT | {"methods": entries})
    assert len(simulate.calls) == RUNS
    assert [result["label"] for result in summary["results"]] == ["a/b", "a-b"]


def test_lines_count_the_runs(tmp_path, simulate, capsys):
    simulate.diverges = lambda method, lr, seed: method == METHODS[0]
    experiment = parse(EXPERIMENT)
    run_experiment(experiment, RunDirectory.open(tmp_path, experiment), Lines(Console(width=60)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "10 runs of 20 steps to do"
    assert lines[1] == "[1/10] sgd(identity), lr 0.1, seed 0: diverged after step 10"
    assert lines[-1].startswith(f"[8/8] {METHODS[1]}, lr 1, seed 2: accuracy ")


def test_a_run_ended_in_its_middle_goes_on_from_there_and_leaves_nothing(tmp_path, monkeypatch):
    from telegrad.lab import runner
    from telegrad.runtime.snapshots import Snapshots

    values = EXPERIMENT | {"methods": METHODS[1:], "lrs": [0.1], "seeds": 1}
    whole = run(tmp_path / "whole", values)
    assert not (tmp_path / "whole" / "under-way").exists()
    monkeypatch.setattr(runner, "Snapshots", lambda path: Snapshots(path, every=0.0))
    steps = []

    class Impatient(Lines):
        def record(self, record):
            steps.append(record["step"])
            if steps == list(range(1, 13)):
                raise KeyboardInterrupt

    experiment = parse(values)
    for _ in range(2):
        directory = RunDirectory.open(tmp_path / "ended", experiment)
        try:
            resumed = run_experiment(experiment, directory, Impatient(Console(quiet=True)))
        except KeyboardInterrupt:
            assert len(list((tmp_path / "ended" / "under-way").iterdir())) == 1
    assert steps == [*range(1, 13), *range(12, 21)]
    assert not (tmp_path / "ended" / "under-way").exists()
    for name in ("metric_mean", "bits_up_per_worker", "validation_mean"):
        assert resumed["results"][0][name] == whole["results"][0][name]
