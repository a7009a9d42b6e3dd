"""A run that was ended and goes on in another process is, bit for bit, the run that never was."""

import math

import pytest
import torch

import telegrad as tg
from telegrad.errors import ConfigError, DataError
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.snapshots import Snapshots, ledger_from, ledger_state
from telegrad.workloads import Split
from telegrad.workloads.cifar10 import Cifar10Task

SHORT = {"steps": 9, "workers": 3, "batch_size": 8, "lr": 0.05, "evaluate_every": 4, "schedule": "cosine"}
METHODS = [
    ("sgd(mlmc(stopk(s=0.01)))", {"optimizer": "adamw"}),
    ("sgd(mlmc(shared_order(s=0.01)))", {"momentum": 0.9}),
    ("ef21_sgdm(topk(k=0.01), momentum=0.1)", {"gradients": "loop", "granularity": "tensor"}),
    ("ef14(topk(k=0.01))", {"topology": "two_phase"}),
    ("diana(randk(k=0.01))", {"dirichlet": 0.5, "batch_size": 4}),
    ("marina(randk(k=0.1), probability=0.3)", {"optimizer": "adamw"}),
    ("scaffnew(probability=0.3)", {}),
]


class Ended(BaseException):
    """Stands for a signal."""


def run(snapshots, until, method, more):
    def progress(record):
        if record["step"] == until:
            raise Ended

    return tg.simulate("digits", method, **(SHORT | more), snapshots=snapshots, progress=progress)


def same(a, b):
    # NaN, the loss before the first step, equals nothing; seconds differ.
    keys = [key for key in a if "seconds" not in key]
    return all(a[key] == b[key] or (math.isnan(a[key]) and math.isnan(b[key])) for key in keys)


@pytest.mark.parametrize(("method", "more"), METHODS, ids=[method for method, _ in METHODS])
def test_a_run_ended_twice_goes_on_to_the_same_bits(tmp_path, method, more):
    whole = run(None, None, method, more)
    path = tmp_path / "deeper" / "run.pt"
    for until in (4, 7):
        with pytest.raises(Ended):
            run(Snapshots(path, every=0.0), until, method, more)
        assert torch.load(path, weights_only=True)["state"]["step"] == until - 1
    resumed = run(Snapshots(path, every=0.0), None, method, more)
    for name, value in whole.parameters.items():
        assert value.equal(resumed.parameters[name]), name
    assert resumed.ledger.to_dict() == whole.ledger.to_dict()
    assert len(resumed.records) == len(whole.records)
    assert all(map(same, resumed.records, whole.records))


@pytest.mark.parametrize("method", ["sgd(identity)", "marina(randk(k=0.5), probability=0.3)"])
def test_the_statistics_of_batch_normalisation_go_on_too(tmp_path, method):
    images = tg.Key(0).integers(48 * 3072, 256).to(torch.uint8).view(48, 3, 32, 32)
    split = Split(images, torch.arange(48) % 10)
    task = Cifar10Task(split, split, split, width=2, blocks=1)
    setting = {"workers": 2, "steps": 4, "batch_size": 4, "evaluate_every": 1}
    whole = tg.simulate(task, method, **setting)
    path = tmp_path / "run.pt"
    with pytest.raises(Ended):
        tg.simulate(task, method, **setting, snapshots=Snapshots(path, every=0.0), progress=_end_at_3)
    resumed = tg.simulate(task, method, **setting, snapshots=Snapshots(path, every=0.0))
    assert all(map(same, resumed.records, whole.records))
    assert [record["step"] for record in resumed.records] == [0, 1, 2, 3, 4]


def _end_at_3(record):
    if record["step"] == 3:
        raise Ended


def test_nothing_is_written_before_it_is_due(tmp_path):
    run(Snapshots(tmp_path / "run.pt", every=3600.0), None, "sgd(identity)", {})
    assert list(tmp_path.iterdir()) == []


def test_the_snapshot_of_another_run_and_a_damaged_one_are_told(tmp_path):
    path = tmp_path / "run.pt"
    run(Snapshots(path, every=0.0), None, "sgd(identity)", {})
    with pytest.raises(ConfigError, match=r"another run, sgd\(identity\).*lr=0\.05"):
        run(Snapshots(path), None, "sgd(identity)", {"lr": 0.1})
    whole = path.read_bytes()
    for damaged in (b"", b"no snapshot", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"run\.pt is no snapshot.*delete it"):
            run(Snapshots(path), None, "sgd(identity)", {})


def test_a_snapshot_needs_all_workers_in_one_process_and_no_clock(tmp_path):
    clock = tg.methods.clock.Clock(gradient=[1, 2, 3], message=1)
    with pytest.raises(ConfigError, match="without a clock"):
        tg.simulate("digits", "sgd(identity)", **SHORT, clock=clock, snapshots=Snapshots(tmp_path / "x"))


def test_an_account_survives_being_written_down():
    ledger = tg.simulate("digits", "sgd(mlmc(rtn))", **(SHORT | {"steps": 2, "evaluate_every": 2})).ledger
    again = ledger_from(ledger_state(ledger))
    assert again == ledger
    assert again.levels.total() == 6
    assert Ledger.merged([again]).to_dict() == ledger.to_dict()
