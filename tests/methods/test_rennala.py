"""Rennala: whose messages make a batch, by hand; and what waiting costs on one clock."""

import pytest
import torch

import telegrad as tg
from problems import t2
from telegrad.methods import Clock


def test_a_batch_is_of_messages_from_the_present_point():
    """Worker 0 sends every 2 seconds, worker 1 every 5, batches of 2. At 2 and 4 worker 0's make a step; worker 1's of
    second 5 is from the point before it. At 6 and 8 worker 0's make the next; worker 1's of second 10 is old again.
    """
    setting = {"workers": 2, "clock": Clock(gradient=(1, 4), message=1), "lr": 0.25, "batch_size": None, "seed": 3}
    task = t2()
    ours = tg.simulate(task, "rennala(identity, batch=2)", steps=7, **setting)
    x = torch.zeros(2, dtype=torch.float64)
    held = (
        tg.simulate(task, "async_sgd(identity)", steps=1, **setting).parameters["x"] / 0.25
    )  # -gradient of worker 0 at 0
    own = 0 if held[0] > 0 else 1
    curvature, linear = [([1.0, 2.0], [1.0, 0.0]), ([3.0, 1.0], [0.0, 1.0])][own]
    for _ in range(2):
        x = x - 0.25 * (torch.tensor(curvature).double() * x - torch.tensor(linear).double())
    assert torch.equal(ours.parameters["x"], x)
    assert ours.records[-1]["simulated_seconds"] == 10


def test_on_one_clock_only_the_synchronous_methods_wait_for_the_slow():
    """Four workers, one of which takes a thousand times as long; 20 steps of batches of four."""
    clock = Clock(gradient=(1, 1, 1, 1000), message=0.1)
    setting = {"workers": 4, "clock": clock, "batch_size": 1, "lr": 0.01}
    seconds = {
        method: tg.simulate("quadratic", method, steps=steps, **setting).records[-1]["simulated_seconds"]
        for method, steps in {
            "sgd(randk(k=0.5))": 20,
            "rennala(randk(k=0.5), batch=4)": 119,  # of three fast workers 6 messages make a step, the last one 5
            "async_sgd(randk(k=0.5))": 80,
            "shadowheart(randk(k=0.5))": 20,
        }.items()
    }
    assert seconds["sgd(randk(k=0.5))"] == pytest.approx(20 * 1000.1)
    assert seconds["rennala(randk(k=0.5), batch=4)"] == pytest.approx(20 * 2.2)
    assert seconds["async_sgd(randk(k=0.5))"] == pytest.approx(27 * 1.1)
    assert seconds["shadowheart(randk(k=0.5))"] < 20 * 20


@pytest.mark.parametrize("spec", ["rennala(topk(k=1))", "rennala(identity, batch=0)"])
def test_unfit_arguments_are_refused_with_an_example(spec):
    with pytest.raises(tg.SpecError, match=r"[Ff]or example"):
        tg.method(spec)
