"""Shadowheart on a simulated clock: the equilibrium time, who does how much, and how long a run takes."""

import math

import pytest
import torch

import telegrad as tg
from problems import oracle_run, plain_sgd, t2
from telegrad.methods import Clock
from telegrad.methods.shadowheart import budgets, equilibrium_seconds

SPEC = "shadowheart(randk(k=1), noise=1.0)"


def test_the_equilibrium_time_is_the_references():  # C17
    assert equilibrium_seconds([1, 2], [1, 1], 1.0, 1.0) == pytest.approx(1 + math.sqrt(5), rel=1e-12)
    assert equilibrium_seconds([1], [1], 1.0, 1.0) == pytest.approx(2 + 2 * math.sqrt(2), rel=1e-12)
    two = budgets(Clock(gradient=(1, 2), message=(1, 1)), 2, 1.0, 1.0)
    assert [(one.gradients, one.messages) for one in two] == [(3, 3), (1, 3)]
    assert sum(one.weight * one.messages * one.gradients for one in two) == pytest.approx(1.8857, rel=1e-4)


def test_a_slow_worker_sits_out_and_is_not_waited_for():
    clock = Clock(gradient=(1, 1000), message=1)
    run = plain_sgd(oracle_run(t2(), SPEC, 2, clock=clock))
    for index in range(3):
        run.step(index, 0.25)
    each = budgets(clock, 2, 1.0, 1.0)
    assert each[1].messages * each[1].gradients == 0
    assert run.ledger.gradients == [3 * each[0].gradients, 0]
    assert run.ledger.up[1].total() == 0
    assert run.ledger.messages_up == 3 * each[0].messages
    assert run.timeline.seconds == 3 * (each[0].gradients + each[0].messages)
    assert run.timeline.seconds <= 3 * 2 * equilibrium_seconds([1, 1000], [1, 1], 1.0, 1.0)


def test_the_estimate_is_unbiased():
    """The mean over 400 seeds of one round's estimate, 5 standard errors: worker 0 alone, so ∇f_1(0) = (−1, 0)."""
    clock = Clock(gradient=(1, 1000), message=1)
    found = []
    for seed in range(400):
        run = plain_sgd(oracle_run(t2(), SPEC, 2, clock=clock, seed=seed))
        run.step(0, 1.0)
        found.append(-run.point())
    estimates = torch.stack(found)
    error = estimates.std(0) / 20
    assert bool(((estimates.mean(0) - torch.tensor([-1.0, 0.0])).abs() <= 5 * error + 1e-12).all())


def test_without_compression_and_noise_one_worker_sends_its_gradient():
    run = plain_sgd(oracle_run(t2(), "shadowheart(identity, noise=0.0)", 2, clock=Clock(gradient=(2, 1), message=1)))
    run.step(0, 0.25)
    torch.testing.assert_close(run.point(), torch.tensor([0.0, 0.25], dtype=torch.float64))


def test_it_wants_a_clock():
    with pytest.raises(tg.ConfigError, match=r"clock=telegrad\.methods\.Clock"):
        tg.simulate("digits", "shadowheart(randk(k=0.1))", workers=2, steps=1)


def test_a_clock_of_another_number_of_workers_is_refused():
    with pytest.raises(tg.ConfigError, match="3 entries for 2 workers"):
        tg.simulate("digits", "shadowheart(randk(k=0.1))", workers=2, steps=1, clock=Clock(gradient=(1, 2, 3)))


def test_a_gradient_methods_time_is_that_of_its_slowest_worker():
    clock = Clock(gradient=(1, 3), latency=0.5, bandwidth=1000.0)
    setting = {"workers": 2, "steps": 4, "evaluate_every": 2, "batch_size": 4, "clock": clock}
    result = tg.simulate("digits", "sgd(identity)", **setting)
    bits = result.ledger.up[0].total() / 4
    step = 3 + 0.5 + bits / 1000 + 0.5 + bits / 1000
    assert [record["simulated_seconds"] for record in result.records] == pytest.approx([0, 2 * step, 4 * step])
    assert "simulated_seconds" not in tg.simulate("digits", "sgd(identity)", workers=2, steps=0).records[0]
