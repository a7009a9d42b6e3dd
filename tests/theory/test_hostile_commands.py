"""What a newcomer may type after `telegrad theory`, `rescale`, `advise` and `diagnose` that has no meaning: one error
that says what is allowed, and never a traceback or a number for something else than was asked.
"""

import json

import pytest
from typer.testing import CliRunner

from telegrad.cli import app
from telegrad.errors import TelegradWarning

RESCALE = ("rescale", "--lr", "0.1", "--batch-size", "32", "--workers", "8")
ADVISE = ("advise", "--params", "1000", "--workers", "8", "--bandwidth", "10Mbit", "--spec", "qsgd")
DIAGNOSE = ("diagnose", "--batches", "3", "--spec", "qsgd")


def call(*arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("theory", "sgd(topk(k=0.1))", "d=100"), "topk(k=0.1) is biased"),
        (("theory", "sgd(sign)", "d=100"), "unbiased compressors"),
        (("theory", "signsgd"), "signsgd(vote=majority)"),
        (("theory", "sgd", "L=inf"), "above 0, and not infinite, is allowed"),
        (("theory", "sgd", "workers=1e400"), "not infinite"),
        (("theory", "sgd", "L=nan"), "NAME=NUMBER"),
        (("theory", "sgd", "L=1", "L=2"), "given twice"),
        (("theory", "marina", "p=0"), "above 0 up to 1"),
        (("theory", ""), "no theory of a method"),
        ((*RESCALE, "workers=16", "workers=32"), "workers is given twice"),
        ((*RESCALE, "lr=0.2"), "lr=0.2: the rule sets lr"),
        ((*RESCALE, "workers=16", "--free", "workers"), "the rule sets workers"),
        ((*RESCALE, "omega=3", "compressor=randk(k=0.1)"), "write one"),
        ((*RESCALE, "workers=inf"), "not infinite"),
        ((*RESCALE, "noise=2"), "noise of the tuned run"),
        ((*RESCALE, "workers=16", "--nu", "1"), "no variance"),
        ((*RESCALE, "optimizer=sign", "--noise", "1", "--nu", "2"), "no variance"),
        (
            ("rescale", "--lr", "1e-320", "--batch-size", "32", "--workers", "8", "workers=1e300"),
            "too far apart",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_in_one_line(arguments, said):
    code, _, err = call(*arguments)
    assert code == 2
    assert said in err
    assert len([line for line in err.splitlines() if line.startswith("error")]) == 1


def test_a_model_that_diverged_on_the_way_is_not_looked_at():
    with pytest.warns(TelegradWarning, match="step 1 is skipped"):
        code, _, err = call(*DIAGNOSE, "--lr", "1e30", "--after", "3")
    assert code == 2
    assert "weight" in err  # whose gradient it is
    assert "lower the learning rate" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("theory", "gd", "L=1", "--json"),
        (*RESCALE, "workers=16", "--json"),
        (*ADVISE, "--json"),
        (*ADVISE, "--plot"),
        (*DIAGNOSE, "--out"),
        (*DIAGNOSE, "--json"),
    ],
)
def test_files_that_cannot_be_written(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where pages go that no option names
    code, _, err = call(*arguments, str(tmp_path))
    assert code == 2
    assert "is a directory" in err
    (tmp_path / "file").write_text("")
    code, _, err = call(*arguments, str(tmp_path / "file" / "below.png"))
    assert code == 2
    assert "a path that can be used is wanted" in err


def test_a_plot_is_written_where_it_is_wanted(tmp_path):
    assert call(*ADVISE, "--plot", str(tmp_path / "plot"))[0] == 0
    assert (tmp_path / "plot").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("spec", "method", "own"),
    [
        ("local_sgd(randk(k=0.1), local_lr=0.01, local_steps=4)", "mlmc_local", {"lr": 0.01, "local_steps": 4}),
        ("local_sgd(identity, local_lr=0.01, local_steps=4)", "local_sgd", {"lr": 0.01, "local_steps": 4}),
        ("marina(permk(workers=4), probability=0.25)", "marina_permk", {"p": 0.25}),
        ("marina(randk(k=0.1), probability=0.25)", "marina", {"p": 0.25, "omega": 9.0}),
        ("tamuna(probability=0.2, cohort=3, owners=2)", "tamuna", {"owners": 2, "cohort": 3}),
        ("signsgd(vote=majority)", "sign_majority", {}),
        ("ef21_sgdm(topk(k=0.1), momentum=0.2)", "ef21_sgdm", {"momentum": 0.2, "alpha": 0.1}),
    ],
)
def test_a_spec_is_read_whole(spec, method, own, tmp_path):
    """Its own arguments are constants too, and compression is never left out of the theorem."""
    file = tmp_path / "theory.json"
    assert call("theory", spec, "d=1000", "--json", str(file))[0] == 0
    found = json.loads(file.read_text())
    assert found["method"] == method
    assert own.items() <= found["constants"].items()


def test_what_is_given_counts_before_what_the_spec_says(tmp_path):
    file = tmp_path / "theory.json"
    assert call("theory", "diana(randk(k=0.1))", "d=1000", "omega=3", "--json", str(file))[0] == 0
    assert json.loads(file.read_text())["constants"]["omega"] == 3


def test_changes_do_not_depend_on_their_order(tmp_path):
    for changes in (("omega=3", "optimizer=sgd"), ("optimizer=sgd", "omega=3")):
        file = tmp_path / "rescaled.json"
        assert call(*RESCALE, *changes, "--json", str(file))[0] == 0
        assert json.loads(file.read_text())["new"]["lr"] == pytest.approx(0.025)
