"""What noise costs, as seen in a few steps: on quadratics whose answer is known."""

import math

import pytest
import torch
from torch import nn

import telegrad as tg
from telegrad.runtime.choosing import steps_needed
from telegrad.runtime.noise_cost import Watch, cost_of_noise, persistence


def moves_of(optimizer_of, steps=6, entries=500):
    """A watch of an optimizer's steps along gradients that are drawn."""
    parameter = nn.Parameter(tg.Key(1).normal(entries).float())
    optimizer, watch = optimizer_of([parameter]), Watch([parameter])
    for step in range(steps):
        watch.begin()
        parameter.grad = tg.Key(2).fold(step=step).normal(entries).float()
        watch.end({parameter: parameter.grad})
        optimizer.step()
    watch.begin()
    return watch.persistence()


def test_the_momentum_of_an_optimizer_shows_in_its_moves():
    for momentum in (0.0, 0.5, 0.9):
        found = moves_of(lambda own, momentum=momentum: torch.optim.SGD(own, lr=0.1, momentum=momentum))
        assert found == pytest.approx(momentum, abs=1e-5)
    decayed = moves_of(lambda own: torch.optim.SGD(own, lr=0.1, momentum=0.9, weight_decay=1e-3))
    assert decayed == pytest.approx(0.9, abs=0.01)


def test_of_adam_and_of_what_does_not_move_nothing_is_said():
    assert math.isnan(moves_of(lambda own: torch.optim.Adam(own, lr=0.1)))
    assert math.isnan(moves_of(lambda own: torch.optim.SGD(own, lr=0.0)))
    assert math.isnan(moves_of(lambda own: torch.optim.SGD(own, lr=0.1, maximize=True)))
    assert math.isnan(moves_of(lambda own: torch.optim.SGD(own, lr=0.1), steps=1))
    bad = torch.tensor([1.0, math.nan], dtype=torch.float64)
    assert math.isnan(persistence(bad, bad, bad))


def test_on_a_quadratic_it_is_the_learning_rate_times_the_curvature_along_the_errors():
    """4 ranks, f_m = h‖w − b_m‖²/2, importance sampling: q = η h, whatever the direction. 40 steps, seed 0."""
    ranks, entries, rate, h = 4, 2000, 0.02, 3.0
    w, places = torch.zeros(entries), [tg.Key(0).fold(rank=r).normal(entries).float() for r in range(ranks)]
    compressor, before, found = tg.compressor("importance(k=0.2)"), None, []
    for step in range(40):
        gradients = [h * (w - place) for place in places]
        if before is not None:
            square = sum(float(e.square().sum()) for e in before) / ranks
            found += [-ranks * float(e @ g) / square for e, g in zip(before, gradients, strict=True)]
        codes = [compressor.encode(g, tg.Key(3).fold(step=step, rank=r)) for r, g in enumerate(gradients)]
        before = [code.decode() - g for code, g in zip(codes, gradients, strict=True)]
        w = w - rate * sum(code.decode() for code in codes) / ranks
    mean, error = torch.tensor(found).mean().item(), torch.tensor(found).std().item() / len(found) ** 0.5
    assert abs(mean - rate * h) <= 4 * error
    assert error <= 0.2 * rate * h
    assert rate * h <= cost_of_noise(found, 0.0) <= mean + 3 * error
    assert cost_of_noise(found, 0.9) == pytest.approx(10 * cost_of_noise(found, 0.0))


def test_costs_are_from_zero_and_nan_where_nothing_is_known():
    assert cost_of_noise([-1.0, -1.0, -1.0], 0.0) == 0.0
    assert cost_of_noise([0.5, 0.5], 0.0) == 0.5
    assert math.isnan(cost_of_noise([0.5, math.nan], 0.0))
    assert math.isnan(cost_of_noise([], 0.0))
    assert math.isnan(cost_of_noise([0.5, 0.5], math.nan))


def test_steps_follow_from_the_share_of_the_progress_that_is_lost():
    assert steps_needed(9.0, 0.0, 0.0) == 1.0
    assert steps_needed(9.0, 0.0, 0.05) == pytest.approx(1 / (1 - 0.05 * 8 / 2))
    assert steps_needed(9.0, 1.0, 0.025) == pytest.approx(1 / (1 - 0.025 * 16 / 2))
    assert steps_needed(9.0, 0.0, 0.125) == math.inf
    assert steps_needed(9.0, 0.0, math.nan) == 9.0
    assert steps_needed(9.0, math.inf, 0.01) == 9.0
