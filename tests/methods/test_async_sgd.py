"""Arrivals on a simulated clock: their order, delays, what they cost, and that training works."""

import pytest
import torch

import telegrad as tg
from telegrad.methods import Clock
from telegrad.methods.async_sgd import AsyncSGD


def seen(monkeypatch):
    """What the server knows of every arrival: (sender, delay, seconds)."""
    found, plain = [], AsyncSGD.server_step

    def server_step(self, upload, x, state, step, optimizer):
        found.append((step.sender, step.delay, step.seconds))
        return plain(self, upload, x, state, step, optimizer)

    monkeypatch.setattr(AsyncSGD, "server_step", server_step)
    return found


def test_messages_arrive_when_their_workers_are_through(monkeypatch):
    """Worker 0 takes 2 seconds a message, worker 1 takes 5: by hand, ties to the lower rank."""
    found = seen(monkeypatch)
    clock = Clock(gradient=(1, 4), message=1)
    result = tg.simulate("quadratic", "async_sgd(identity)", workers=2, steps=7, clock=clock, evaluate_every=7)
    times = [(0, 0, 2.0), (0, 0, 4.0), (1, 2, 5.0), (0, 1, 6.0), (0, 0, 8.0), (0, 0, 10.0), (1, 3, 10.0)]
    assert found == times
    assert result.records[-1]["simulated_seconds"] == 10
    dense = tg.compressor("identity").encode(torch.ones(32)).nbits
    assert [account.total() for account in result.ledger.up] == [5 * dense, 2 * dense]
    assert [account.total() for account in result.ledger.down] == [5 * dense, 2 * dense]
    assert result.ledger.gradients == [6, 3], "one more of each is under way"


def test_bits_take_time_both_ways(monkeypatch):
    found = seen(monkeypatch)
    dense = tg.compressor("identity").encode(torch.ones(32)).nbits
    clock = Clock(gradient=1, latency=0.5, bandwidth=float(dense))
    tg.simulate("quadratic", "async_sgd(identity)", workers=1, steps=3, clock=clock)
    assert [seconds for *_, seconds in found] == [2.5, 6.5, 10.5]


def test_with_one_worker_it_is_sgd():
    setting = {"workers": 1, "steps": 20, "lr": 0.1, "gradients": "loop", "momentum": 0.5}
    ours = tg.simulate("quadratic", "async_sgd(randk(k=0.5))", clock=Clock(gradient=1), **setting)
    plain = tg.simulate("quadratic", "sgd(randk(k=0.5))", **setting)
    assert torch.equal(ours.parameters["x"], plain.parameters["x"])


def test_messages_from_points_too_old_are_left_out():
    setting = {"workers": 2, "steps": 7, "clock": Clock(gradient=(1, 4), message=1), "gradients": "loop", "lr": 0.1}
    every = tg.simulate("quadratic", "async_sgd(identity)", **setting)
    some = tg.simulate("quadratic", "async_sgd(identity, longest_delay=1)", **setting)
    assert not torch.equal(every.parameters["x"], some.parameters["x"])
    assert some.ledger.up == every.ledger.up, "what is left out was sent"


def test_a_bad_gradient_is_left_out_and_its_worker_goes_on():
    with pytest.warns(tg.TelegradWarning, match="skipped"), pytest.raises(tg.DivergedError):
        tg.simulate("quadratic", "async_sgd(identity)", workers=2, steps=99, lr=1e30, clock=Clock(gradient=1))


def test_it_wants_a_clock():
    with pytest.raises(tg.ConfigError, match="clock="):
        tg.simulate("quadratic", "async_sgd(identity)", workers=2, steps=1)
