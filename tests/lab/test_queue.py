"""A folder of experiments as a queue, and the records of several machines joined."""

import gzip
import json

import pytest
from rich.console import Console

from command_line import invoke
from telegrad.errors import ConfigError, DataError, TelegradWarning
from telegrad.lab import config
from telegrad.lab.config import parse
from telegrad.lab.merge import merge
from telegrad.lab.progress import Lines
from telegrad.lab.records import PACK, RunDirectory
from telegrad.lab.runner import jobs_below, run_queue, seconds_of

METHODS = ["sgd(identity)", "sgd(topk(k=0.01))"]
SMALL = {"methods": METHODS, "lrs": [0.1, 0.3], "seeds": 2, "workers": 2, "steps": 10}
QUIET = Lines(Console(quiet=True))


def write(folder, name, **more):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / f"{name}.yaml").write_text(config.to_yaml(parse(SMALL | more)))


def run(folder, out, **more):
    return run_queue(jobs_below(folder, None, out), QUIET, **more)


@pytest.mark.parametrize(
    ("priority", "order"),
    [
        (1, "a0 a0 a0 a0 b0 b0 b0 b0 a1 a1 b1 b1"),
        (2, "b0 b0 b0 b0 a0 a0 a0 a0 b1 b1 a1 a1"),
        (3, "b0 b0 b0 b0 b1 b1 a0 a0 a0 a0 a1 a1"),
    ],
)
def test_searches_come_before_seeds_and_low_priorities_first(tmp_path, simulate, priority, order):
    write(tmp_path / "e", "a", priority=priority, steps=11, evaluate_every=11)
    write(tmp_path / "e" / "deeper", "b", priority=1, steps=12, evaluate_every=12)
    names = {11: "a", 12: "b"}
    taken = []
    simulate.bend = lambda method, lr, seed, record: taken.append((record["step"], seed))
    summaries = run(tmp_path / "e", tmp_path / "out")
    assert [summary["complete"] for summary in summaries] == [True, True]
    assert " ".join(f"{names[step]}{seed}" for step, seed in taken if step in names) == order
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]
    first = RunDirectory.load(tmp_path / "out" / "b")
    assert first.experiment.steps == 12
    again = len(simulate.calls)
    run(tmp_path / "e", tmp_path / "out")
    assert len(simulate.calls) == again


def test_an_interrupted_queue_goes_on_where_it_was(tmp_path, simulate):
    write(tmp_path / "e", "a")
    write(tmp_path / "e", "b")
    simulate.interrupt_at = 5
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "e", tmp_path / "out")
    simulate.interrupt_at = None
    run(tmp_path / "e", tmp_path / "out")
    assert len(simulate.calls) == 12 + 1


def test_no_run_begins_that_would_end_after_the_budget(tmp_path, simulate):
    write(tmp_path / "e", "a")
    # The stand-in says 0.01 s a step: a run of 10 steps and its evaluations are expected to take 0.125 s.
    run(tmp_path / "e", tmp_path / "out", budget=0.12)
    assert len(simulate.calls) == 1
    run(tmp_path / "e", tmp_path / "out", budget=60.0)
    assert len(simulate.calls) == 6


def test_a_first_run_that_turns_out_too_long_is_given_up_and_a_shorter_one_takes_its_place(tmp_path, simulate):
    write(tmp_path / "e", "long", priority=0, steps=1000, evaluate_every=1)
    write(tmp_path / "e", "short", priority=1, steps=10, evaluate_every=1)
    now = 0.0

    def tick(method, lr, seed, record):
        nonlocal now
        now += 1.0

    simulate.bend = tick
    # A second a step: only runs of 10 steps fit into 100 s.
    run(tmp_path / "e", tmp_path / "out", budget=100.0, clock=lambda: now)
    kept = {name: len(list((tmp_path / "out" / name / "finished").glob("*.json"))) for name in ("long", "short")}
    assert kept == {"long": 0, "short": 6}
    assert now < 100


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("60m", 3600), ("1.5h", 5400)])
def test_budgets_are_times(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "60", "m", "-1m", "0s", "nanm", "infh", "1 day"])
def test_what_is_no_time_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="60m"):
        seconds_of(text)


def test_an_experiment_without_its_data_is_left_out_and_the_last_one_is_an_error(tmp_path, simulate):
    write(tmp_path / "e", "a", workload="cifar10", priority=0)
    write(tmp_path / "e", "b", priority=1)
    with pytest.warns(TelegradWarning, match=r"a is left out: cifar10 looked for"):
        run_queue(jobs_below(tmp_path / "e", str(tmp_path / "nothing"), tmp_path / "out"), QUIET)
    assert len(simulate.calls) == 6
    write(tmp_path / "f", "a", workload="cifar10")
    with pytest.raises(DataError, match="cifar10 looked for"):
        run_queue(jobs_below(tmp_path / "f", str(tmp_path / "nothing"), tmp_path / "out2"), QUIET)


def test_a_folder_without_experiments_or_with_two_of_a_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no experiment"):
        jobs_below(tmp_path, None, tmp_path / "out")
    write(tmp_path / "x", "a")
    write(tmp_path / "y", "a")
    with pytest.raises(ConfigError, match=r"a\.yaml; rename"):
        jobs_below(tmp_path, None, tmp_path / "out")


def test_run_directories_below_a_folder_of_experiments_are_no_experiments(tmp_path, simulate):
    write(tmp_path / "e", "a")
    run(tmp_path / "e", tmp_path / "e" / "records")
    assert [job.name for job in jobs_below(tmp_path / "e", None, tmp_path / "e" / "records")] == ["a"]


def test_the_folder_of_the_data_is_not_recorded_and_may_change(tmp_path, simulate):
    for data in ("here", "there", None):
        experiment = parse(SMALL | {"workload": "digits", "data": data})
        run_queue([*jobs_below_one(tmp_path, experiment)], QUIET)
    assert len(simulate.calls) == 6
    assert config.load(tmp_path / "config.yaml").data is None


def jobs_below_one(path, experiment):
    from telegrad.lab.runner import Job

    yield Job("one", experiment, RunDirectory.open(path, experiment))


def test_methods_and_seeds_may_be_added_but_no_setting_of_a_method_may_change(tmp_path, simulate):
    run_queue([*jobs_below_one(tmp_path, parse(SMALL))], QUIET)
    more = parse(SMALL | {"methods": [*METHODS, "sgd(randk(k=0.01))"], "seeds": 3, "lrs": [0.1, 0.3, 0.9]})
    run_queue([*jobs_below_one(tmp_path, more)], QUIET)
    assert len(set(simulate.calls)) == len(simulate.calls)
    assert {run.label for run in RunDirectory.load(tmp_path).runs} == {*METHODS, "sgd(randk(k=0.01))"}
    other = [{"spec": METHODS[0], "momentum": 0.9}, METHODS[1]]
    with pytest.raises(ConfigError, match=r"the method 'sgd\(identity\)'.*momentum"):
        RunDirectory.open(tmp_path, parse(SMALL | {"methods": other}))


def test_a_directory_in_which_nothing_has_finished_takes_any_setting(tmp_path, simulate):
    RunDirectory.open(tmp_path, parse(SMALL))
    RunDirectory.open(tmp_path, parse(SMALL | {"steps": 20}))
    assert config.load(tmp_path / "config.yaml").steps == 20


def test_records_of_two_machines_make_the_set_that_one_would_have_made(tmp_path, simulate):
    whole = tmp_path / "whole"
    write(tmp_path / "e", "a")
    run(tmp_path / "e", whole)
    write(tmp_path / "one", "a", methods=METHODS[:1])
    write(tmp_path / "two", "a", methods=METHODS[1:])
    for part in ("one", "two"):
        run(tmp_path / part, tmp_path / f"out-{part}")
    counts = merge([tmp_path / "out-one", tmp_path / "out-two"], tmp_path / "joined")
    assert counts == {"a": 6}
    assert sorted(path.name for path in (tmp_path / "joined" / "a").iterdir()) == ["config.yaml", PACK]
    joined, expected = RunDirectory.load(tmp_path / "joined" / "a"), RunDirectory.load(whole / "a")
    assert joined.rebuild() == expected.rebuild()
    assert joined.runs == expected.runs
    # Resumed, there is nothing to do; merged again, nothing changes.
    calls = len(simulate.calls)
    run(tmp_path / "e", tmp_path / "joined")
    assert len(simulate.calls) == calls
    before = (tmp_path / "joined" / "a" / PACK).read_bytes()
    merge([whole], tmp_path / "joined")
    assert (tmp_path / "joined" / "a" / PACK).read_bytes() == before


def test_experiments_of_a_queue_that_were_not_begun_are_no_obstacle(tmp_path, simulate):
    write(tmp_path / "e", "a")
    write(tmp_path / "e", "b", priority=9)
    simulate.interrupt_at = 2
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "e", tmp_path / "out")
    assert merge([tmp_path / "out"], tmp_path / "joined") == {"a": 1}
    assert invoke("report", str(tmp_path / "out")).exit_code == 0
    write(tmp_path / "f", "c")
    jobs_below(tmp_path / "f", None, tmp_path / "empty")
    with pytest.raises(DataError, match="no run has finished"):
        merge([tmp_path / "empty"], tmp_path / "joined")


def test_a_merge_of_unlike_settings_is_refused_and_writes_nothing(tmp_path, simulate):
    for name, steps in (("one", 10), ("two", 20)):
        write(tmp_path / name, "a", steps=steps)
        run(tmp_path / name, tmp_path / f"out-{name}")
    with pytest.raises(ConfigError, match="steps"):
        merge([tmp_path / "out-one", tmp_path / "out-two"], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
    with pytest.raises(DataError, match=r"no config\.yaml"):
        merge([tmp_path / "one"], tmp_path / "joined")


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"{\n"), gzip.compress(b'{"label": 1}\n')[:-4]],
    ids=["empty", "no gzip", "no JSON", "cut short"],  # gzip writes the time: workers would list different tests
)
def test_a_damaged_pack_is_named(tmp_path, simulate, content):
    run_queue([*jobs_below_one(tmp_path, parse(SMALL))], QUIET)
    (tmp_path / PACK).write_bytes(content)
    with pytest.raises(DataError, match=r"finished\.jsonl\.gz is no record"):
        RunDirectory.load(tmp_path)


def test_the_commands_run_a_folder_and_join_its_records(tmp_path, simulate):
    write(tmp_path / "e", "a")
    out = invoke("run", str(tmp_path / "e"), "--out", str(tmp_path / "out"), "--budget", "1h")
    assert out.exit_code == 0, out.output
    assert "6 runs finished, 0 to do" in out.output
    joined = invoke("merge", str(tmp_path / "out"), "--out", str(tmp_path / "joined"))
    assert "a: 6 runs" in joined.output
    lines = gzip.decompress((tmp_path / "joined" / "a" / PACK).read_bytes()).decode().splitlines()
    assert len({(json.loads(line)["label"], json.loads(line)["lr"], json.loads(line)["seed"]) for line in lines}) == 6
    refused = invoke("run", str(tmp_path / "e" / "a.yaml"), "--budget", "1h")
    assert refused.exit_code == 2
    assert "not a folder" in refused.output
