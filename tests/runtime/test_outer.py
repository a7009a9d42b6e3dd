"""Outer loops: over gloo, the situations of outer_scenarios.py; in the simulator; and how a model is cut."""

import json

import outer_scenarios
import pytest
import torch
from launch import launch, outputs

import telegrad as tg
from telegrad.runtime.fragments import fragments_of
from telegrad.runtime.snapshots import Snapshots

STREAMING = "outer(topk(k=0.01), feedback=ef(decay=0.9), every=6, fragments=2, delay=2, alpha=0.5)"


@pytest.fixture(scope="module")
def told():
    """What two ranks say of every situation."""
    ended = launch("outer_scenarios.py", 2)
    lines = [[line for line in one.output.splitlines() if line.startswith('{"scenario"')] for one in ended]
    return [{said["scenario"]: said["failure"] for said in map(json.loads, rank)} for rank in lines], outputs(ended)


@pytest.mark.xdist_group("ddp")
@pytest.mark.parametrize("scenario", outer_scenarios.SCENARIOS)
def test_scenario(scenario, told):
    found, everything = told
    for rank in range(2):
        assert scenario in found[rank], f"rank {rank} never came to it\n{everything}"
        assert not found[rank][scenario], found[rank][scenario]


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
