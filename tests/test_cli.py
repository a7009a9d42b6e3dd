import json
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the command line needs typer: pip install 'telegrad[lab]'")

from command_line import invoke
from patience import PATIENCE
from telegrad.errors import DivergedError, TelegradWarning
from telegrad.spec import names

TINY = ["--method", "sgd(identity)", "--workers", "2", "--steps", "4", "--seeds", "2", "--lr", "0.1"]


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Runs a command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = invoke(*arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


def test_compare_leaves_the_promised_files_and_resumes(call, tmp_path):
    code, out, err = call("compare", *TINY)
    assert code == 0
    assert "2 runs of 4 steps to do" in err
    (directory,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"digits-[0-9a-f]{8}", directory.name)
    promised = {"config.yaml", "metrics.jsonl", "ledger.json", "summary.json", "report.html", "metric-vs-bits.png"}
    assert promised <= {file.name for file in directory.iterdir()}
    (result,) = json.loads((directory / "summary.json").read_text())["results"]
    assert result["method"] == "sgd(identity)"
    assert result["steps"] == 4
    assert f"{100 * result['metric_mean']:.2f} ± {100 * result['metric_std']:.2f} %" in out
    assert f"report: runs/{directory.name}/report.html" in out
    before = {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()}
    code, again, err = call("compare", *TINY)
    assert code == 0
    assert "0 runs to do, 2 finished earlier" in err
    assert again == out
    assert {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()} == before


def test_the_options_are_the_configuration(call, tmp_path):
    options = {
        "--batch-size": "8",
        "--optimizer": "sgd",
        "--momentum": "0.5",
        "--weight-decay": "0.01",
        "--schedule": "cosine",
        "--warmup-steps": "1",
        "--dirichlet": "0.5",
        "--granularity": "tensor",
        "--downlink": "natural" if "natural" in names("compressor") else "qsgd(levels=4)",
        "--gradients": "loop",
        "--evaluate-every": "2",
        "--target": "0.2",
    }
    code, _, err = call("compare", *TINY, *(text for pair in options.items() for text in pair), "--out", "here")
    assert code == 0, err
    from telegrad.lab.config import load

    experiment = load(tmp_path / "here" / "config.yaml")
    for option, value in options.items():
        assert str(getattr(experiment, option[2:].replace("-", "_"))) == value
    assert (experiment.workers, experiment.steps, experiment.seeds, experiment.lrs) == (2, 4, (0, 1), (0.1,))


def test_a_comparison_records_what_simulate_returns(call, tmp_path):
    import telegrad

    call("compare", *TINY, "--out", "here")
    result = telegrad.simulate("digits", "sgd(identity)", workers=2, steps=4, lr=0.1, seed=1)
    lines = [json.loads(line) for line in (tmp_path / "here" / "metrics.jsonl").read_text().splitlines()]
    recorded = [line for line in lines if line["seed"] == 1]
    assert len(recorded) == len(result.records) == 5
    for line, record in zip(recorded, result.records, strict=True):
        for key in set(record) - {"seconds", "encode_seconds", "train_loss"}:
            assert line[key] == record[key]
    ledgers = json.loads((tmp_path / "here" / "ledger.json").read_text())["runs"]
    assert ledgers[1]["up"] == result.ledger.to_dict()["up"]


def test_the_grid_asked_for_replaces_those_of_the_default_methods(call, tmp_path, monkeypatch):
    from telegrad.lab.config import load

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("telegrad.lab.runner.simulate", stop)
    assert call("compare", "--lr", "0.2", "--out", "one")[0] == 130
    experiment = load(tmp_path / "one" / "config.yaml")
    assert len(experiment.methods) == 6
    assert all(experiment.lrs_of(entry) == (0.2,) for entry in experiment.methods)
    assert call("compare", "--out", "all")[0] == 130
    experiment = load(tmp_path / "all" / "config.yaml")
    assert all(len(experiment.lrs_of(entry)) > 1 for entry in experiment.methods)


def test_run_takes_the_configuration_that_compare_left(call, tmp_path):
    call("compare", *TINY, "--out", "first")
    code, _, err = call("run", "first/config.yaml", "--out", "second", "--threads", "1")
    assert code == 0
    assert "2 runs of 4 steps to do" in err
    config, metrics = ("config.yaml", "metrics.jsonl")
    assert (tmp_path / "second" / config).read_text() == (tmp_path / "first" / config).read_text()

    def without_times(directory):
        lines = [json.loads(line) for line in (tmp_path / directory / metrics).read_text().splitlines()]
        return [{key: value for key, value in line.items() if "seconds" not in key} for line in lines]

    assert without_times("second") == without_times("first")


def test_report_rebuilds_what_is_lost(call, tmp_path):
    _, table, _ = call("compare", *TINY, "--out", "here")
    files = [file for file in (tmp_path / "here").iterdir() if file.is_file() and file.name != "config.yaml"]
    before = {file: file.read_bytes() for file in files}
    for file in files:
        file.unlink()
    code, again, _ = call("report", "here")
    assert code == 0
    assert again == table
    assert {file: file.read_bytes() for file in files} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["compare", "--method", "sgd(topkk(k=0.01))"],
            "error: the options: methods[0].spec: unknown compressor 'topkk'",
        ),
        (["compare", "--workload", "digit"], "error: the options: workload: unknown workload 'digit'"),
        (["compare", "--steps", "0"], "error: the options: steps: 0 was given; an integer from 1 to 10^9 is wanted"),
        (
            ["compare", "--schedule", "step"],
            "error: the options: schedule: 'step' was given; constant, linear or cosine",
        ),
        (["compare", "--method", "sgd(identity)", "--method", "sgd(identity)"], "two methods have the label"),
        (["compare", "--method", "sgd(topk(k=99999))", "--workers", "2"], "error: sgd(topk(k=99999)): topk(k=99999)"),
        (["compare", "--workload", "cifar10", "--data", "nowhere"], "error: "),
        (["run", "absent.yaml"], "error: cannot read the configuration absent.yaml"),
        (["report", "."], "error: . is no run directory"),
        (["report", "absent"], "error: absent is not a folder"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(call, arguments, message):
    code, out, err = call(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err


def test_another_configuration_is_not_mixed_in(call, tmp_path):
    call("compare", *TINY, "--out", "here")
    code, _, err = call("compare", *TINY, "--batch-size", "4", "--out", "here")
    assert code == 2
    assert "differs in batch_size (16 there, 4 asked for)" in err


def test_an_interruption_is_told_and_resumed(call, monkeypatch):
    from telegrad.lab import runner

    original, calls = runner.simulate, []

    def interrupted(*arguments, **settings):
        calls.append(settings["seed"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments, **settings)

    monkeypatch.setattr(runner, "simulate", interrupted)
    code, out, err = call("compare", *TINY, "--out", "here")
    assert code == 130
    assert "interrupted; finished runs are kept in here; the same command resumes" in err
    assert "Traceback" not in out + err
    code, _, err = call("compare", *TINY, "--out", "here")
    assert code == 0
    assert "1 run of 4 steps to do, 1 finished earlier" in err
    assert calls == [0, 1, 1]


def test_when_every_method_diverges_the_command_says_so(call, monkeypatch):
    def diverge(*_, **__):
        raise DivergedError("non-finite", records=[])

    monkeypatch.setattr("telegrad.lab.runner.simulate", diverge)
    code, out, err = call("compare", *TINY, "--out", "here")
    assert code == 1
    assert "every method diverged" in err
    assert "diverged at every learning rate" in out
    assert Path("here/report.html").exists()


def test_list_names_everything(call):
    code, out, err = call("list")
    assert code == 0, err
    for kind in ("compressor", "ladder", "method", "topology", "workload"):
        for name in names(kind):
            assert re.search(rf"^{name}  ", out, re.MULTILINE), name


def test_an_interrupted_process_keeps_its_runs(tmp_path):
    command = [sys.executable, "-m", "telegrad.cli", "compare", "--out", "here", "--workers", "2", "--lr", "0.1"]
    methods = ["--method", "sgd(identity)", "--steps", "20", "--seeds", "500", "--evaluate-every", "20"]
    process = subprocess.Popen(
        [*command, *methods],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + PATIENCE
    while not list((tmp_path / "here").glob("finished/*.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "interrupted; finished runs are kept in here" in err
    assert "Traceback" not in out + err
    assert not list((tmp_path / "here").rglob("*.tmp"))
    summary = json.loads((tmp_path / "here" / "summary.json").read_text())
    assert not summary["complete"]
    assert len(list((tmp_path / "here" / "finished").iterdir())) == len(summary["results"][0]["seeds"]) >= 1


def test_a_warning_is_one_line_without_our_source(capsys, monkeypatch):
    from telegrad.cli import application

    monkeypatch.setattr(
        application, "app", lambda **_: warnings.warn("step 3 is skipped", TelegradWarning, stacklevel=1)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        application.main()
    assert capsys.readouterr().err == "warning: step 3 is skipped\n"


@pytest.mark.parametrize(
    ("missing", "command"), [("typer", "--help"), ("rich", "list"), ("pydantic", "compare"), ("yaml", "compare")]
)
def test_without_the_extra_lab_it_says_what_to_install(missing, command):
    script = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = [{command!r}]\n"
    script += "from telegrad.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.search(rf"error: .* needs {missing}.*: pip install 'telegrad\[lab\]'", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_modules_that_are_loaded_first_register_what_specs_name(tmp_path, monkeypatch):
    from telegrad.spec.registry import known_by_kind, load

    load()
    monkeypatch.setitem(known_by_kind, "ladder", dict(known_by_kind["ladder"]))
    (tmp_path / "loaded_first.py").write_text(
        "import dataclasses\nimport telegrad as tg\n\n"
        '@tg.register("loaded_first", example="loaded_first", source="a test")\n'
        "@dataclasses.dataclass(frozen=True)\nclass Loaded(tg.Ladder):\n    '''A ladder that a module registers.'''\n"
    )
    monkeypatch.chdir(tmp_path)
    assert "loaded_first" not in invoke("list").stdout
    listed = invoke("--load", "loaded_first", "list")
    assert listed.exit_code == 0
    assert "loaded_first" in listed.stdout
    missing = invoke("--load", "no_such_module", "list")
    assert missing.exit_code == 2
    assert "--load no_such_module: there is no module no_such_module" in missing.stderr
