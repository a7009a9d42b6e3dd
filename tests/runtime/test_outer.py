"""Outer loops: over gloo, the situations of outer_scenarios.py; in the simulator; and how a model is cut."""

import re
from pathlib import Path

import outer_scenarios
import pytest
import torch
from launch import check_scenario, launch, outputs

import telegrad as tg
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.fragments import fragments_of
from telegrad.runtime.outer_loop import OuterLoop
from telegrad.runtime.snapshots import Snapshots
from telegrad.runtime.transport import LocalTransport

STREAMING = "outer(topk(k=0.01), feedback=ef(decay=0.9), every=6, fragments=2, delay=2, alpha=0.5)"


@pytest.mark.xdist_group("ddp")
@pytest.mark.parametrize("scenario", outer_scenarios.SCENARIOS)
def test_scenario(scenario):
    check_scenario("outer_scenarios.py", 2, scenario)


def sizes(fragments):
    return [sum(piece.numel for piece in fragment) for fragment in fragments]


def test_fragments_are_neighbours_of_about_the_same_size_and_none_is_empty():
    model = {str(i): torch.zeros(size) for i, size in enumerate((10, 10, 30, 10, 20, 20))}
    fragments = fragments_of(model, 3, "tensor")
    assert [[piece.name for piece in fragment] for fragment in fragments] == [["0", "1"], ["2", "3"], ["4", "5"]]
    assert sizes(fragments_of({"a": torch.zeros(1000), "b": torch.zeros(1), "c": torch.zeros(1)}, 3, "tensor")) == [
        1000,
        1,
        1,
    ]
    assert sizes(fragments_of({"a": torch.zeros(1), "b": torch.zeros(1), "c": torch.zeros(1000)}, 3, "bucket")) == [
        1,
        1,
        1000,
    ]
    assert sizes(fragments_of(model, 1, "model")) == [100]
    names = [fragment[0].name for fragment in fragments_of(model, 2, "model")]
    assert len(set(names)) == 2


def test_in_the_simulator_a_round_after_every_step_of_uncompressed_sgd_is_sgd():
    setting = {"workers": 3, "steps": 12, "lr": 0.1, "gradients": "loop", "evaluate_every": 12}
    one = tg.simulate("digits", "outer(identity, optimizer=sgd(lr=1), every=1)", **setting)
    other = tg.simulate("digits", "sgd(identity)", **setting)
    for name, value in other.parameters.items():
        torch.testing.assert_close(one.parameters[name], value, rtol=1e-4, atol=1e-5)
    assert one.records[-1]["validation"] == other.records[-1]["validation"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_simulated_run_resumed_from_a_snapshot_goes_on_bit_for_bit(tmp_path, optimizer):
    setting = {"workers": 2, "steps": 11, "lr": 0.01, "optimizer": optimizer, "granularity": "tensor"}
    whole = tg.simulate("digits", STREAMING, **setting)

    class Ended(Exception):
        pass

    def end(record):
        if record["step"] == 8:  # a fragment travels then
            raise Ended

    with pytest.raises(Ended):
        tg.simulate("digits", STREAMING, **setting, progress=end, snapshots=Snapshots(tmp_path / "s", every=0.0))
    resumed = tg.simulate("digits", STREAMING, **setting, snapshots=Snapshots(tmp_path / "s", every=0.0))
    assert all(torch.equal(value, whole.parameters[name]) for name, value in resumed.parameters.items())
    assert resumed.ledger.to_dict() == whole.ledger.to_dict()


def test_the_ledger_has_every_round_and_what_diverges_ends():
    run = tg.simulate("digits", "diloco(every=4, fragments=2)", workers=2, steps=9, lr=0.1)
    assert (run.ledger.steps, run.ledger.silent_steps, run.ledger.messages_up) == (9, 5, 8)
    d = sum(value.numel() for value in run.parameters.values())
    assert 2 * 32 * d < run.ledger.bits_up_per_worker < 2 * 32 * d * 1.01
    with pytest.warns(tg.TelegradWarning), pytest.raises(tg.DivergedError):
        tg.simulate("quadratic", "outer(qsgd(levels=7), every=50)", workers=2, steps=800, lr=1e6)


def test_a_clock_counts_inner_steps_and_rounds_and_refuses_messages_that_travel_beside():
    clock = tg.methods.Clock(gradient=[1.0, 2.0], message=10.0)
    run = tg.simulate("digits", "diloco(every=3)", workers=2, steps=6, lr=0.1, clock=clock)
    assert run.records[-1]["simulated_seconds"] == pytest.approx(6 * 2.0 + 2 * 10.0)
    with pytest.raises(tg.ConfigError, match="write delay=0"):
        tg.simulate("digits", "diloco(every=3, delay=1)", workers=2, steps=6, clock=clock)


def test_sparseloco_is_the_loop_written_out():
    """e ← .95 e + Δ; C(e) is sent; e ← e − C(e); the mean over all workers moves θ by SGD with lr = 1."""
    method = tg.method("sparseloco(every=2)")
    assert (str(method.optimizer), str(method.feedback), method.compressor.k) == ("sgd", "ef(decay=0.95)", 64)
    start = torch.linspace(-1, 1, 9000).view(90, 100)
    workers = [{"weight": start.clone()} for _ in range(3)]
    exchange = exchange_of(method.exchanged, "server", None, LocalTransport(3), tg.Key(0))
    loop = OuterLoop(method, exchange, workers, "tensor")
    theta, errors = start.clone(), [torch.zeros(9000) for _ in range(3)]
    generator = torch.Generator().manual_seed(3)
    for step in range(1, 7):
        for own in workers:
            own["weight"] += torch.randn(90, 100, generator=generator)
        if step % 2 == 0:
            sent = []
            for rank, own in enumerate(workers):
                pending = 0.95 * errors[rank] + (theta - own["weight"]).view(-1)
                code = method.compressor.encode(pending)
                errors[rank] = pending - method.compressor.decode(code)
                sent.append(method.compressor.decode(code))
                assert int((sent[-1] != 0).sum()) == 3 * 64
            theta = theta - (sum(sent) / 3).view(90, 100)
        loop.after_step()
        torch.testing.assert_close(loop.parameters["weight"].detach(), theta)
        if step % 2 == 0:
            assert all(torch.equal(own["weight"], loop.parameters["weight"]) for own in workers)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("outer(topk(k=0.1))", "is biased, and what it leaves out would be lost: write feedback=ef"),
        ("outer(randk(k=0.1), feedback=ef)", "outer needs a contractive compressor.*unbiased ones go without feedback"),
        ("outer(identity, every=4, fragments=2, delay=2)", "0 to 1 steps are allowed: a fragment leaves every 2"),
        ("outer(identity, every=4, fragments=5)", "1 to every=4 are allowed"),
        ("diloco(alpha=1.0)", r"a number in \[0, 1\) is allowed"),
        ("outer(identity, optimizer=adam)", "valid: nesterov, sgd"),
        ("outer(identity, feedback=ef(decay=1.5))", r"a number in \(0, 1\] is allowed"),
    ],
)
def test_specs_that_do_not_fit_are_refused_with_the_reason(spec, said):
    with pytest.raises(tg.SpecError, match=said):
        tg.method(spec)


def test_presets_have_the_published_defaults():
    diloco, muloco = tg.method("diloco"), tg.method("muloco")
    assert (str(diloco.compressor), diloco.every, diloco.optimizer.lr, diloco.optimizer.momentum) == (
        "identity",
        500,
        0.7,
        0.9,
    )
    assert (str(muloco.compressor), muloco.every, muloco.optimizer.lr, muloco.optimizer.momentum) == (
        "identity",
        30,
        0.9,
        0.8,
    )
    assert tg.method("outer(identity)").leaves_after(30) == 0
    streaming = tg.method("outer(identity, every=30, fragments=4)")
    assert {
        step: streaming.leaves_after(step) for step in range(1, 38) if streaming.leaves_after(step) is not None
    } == {7: 0, 15: 1, 22: 2, 30: 3, 37: 0}


@pytest.mark.xdist_group("ddp")
def test_the_example_trains_on_two_ranks():
    ended = launch(Path(__file__).parents[2] / "examples/outer_train.py", 2, "--spec", "sparseloco", "--steps", "120")
    assert [one.code for one in ended] == [0, 0], outputs(ended)
    accuracy = float(re.search(r"sparseloco: accuracy ([\d.]+), [\d.]+ kB", ended[0].output)[1])
    assert accuracy > 0.6, outputs(ended)


@pytest.mark.xdist_group("ddp")
def test_a_lost_worker_ends_training_with_an_error_out_of_the_step():
    ended = launch("outer_lost_worker.py", 2)
    assert ended[0].code == 7, outputs(ended)
    assert ended[0].output.count("a worker is lost or the network is down") == 2
