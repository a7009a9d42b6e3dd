"""F4 and methods run on it: ten unlike quadratics in twenty dimensions, condition 100 (L = 100, mu = 1)."""

import dataclasses
import inspect
import math
import statistics

import torch
from scipy.stats import t as student

import telegrad as tg
from problems import f4, oracle_run, plain_sgd
from telegrad.methods.base import Step
from telegrad.methods.oracle_method import Oracle

D, WORKERS = 20, 10
CONSTANTS = {
    "L": 100.0, "L_mean": 114.19, "L_max": 140.546, "mu": 1.0, "mu_min": 0.58, "workers": WORKERS,
}  # fmt: skip
GAP, DISTANCE, OPTIMUM_ENERGY = 0.09243448, math.sqrt(0.08642818), 9.271809
OMEGA, ALPHA = 9.0, 0.1  # Rand-2 and Top-2

ROWS = f4().train.inputs
A, B = ROWS[:, : D * D].reshape(-1, D, D), ROWS[:, D * D : -1]
MEAN_A, MEAN_B = A.mean(0), B.mean(0)
BEST = torch.linalg.solve(MEAN_A, MEAN_B)
SHIFTS = A @ BEST - B  # every worker's gradient at the optimum


def known(function, **more):
    """F4's constants, and those given, as far as the statement takes them."""
    return {name: value for name, value in (CONSTANTS | more).items() if name in inspect.signature(function).parameters}


def held(name, values, bound):
    """Assert that the mean of one value a seed is at most the bound, with 95 % confidence (one value: exactly), and
    print both; `pytest -k bounds_hold -rP` shows them.
    """
    mean, error = statistics.fmean(values), 0.0
    if len(values) > 1:
        error = student.ppf(0.95, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    print(f"{name}: measured {mean:.4g} (up to {mean + error:.4g}) in {len(values)} runs, bound {bound:.4g}")
    assert mean + error <= bound


def gap(x):
    """f(x) − f*."""
    return float((x - BEST) @ MEAN_A @ (x - BEST)) / 2


def energy(x):
    """‖∇f(x)‖²."""
    return float((MEAN_A @ x - MEAN_B).square().sum())


def unlikeness(x):
    """mean‖∇f_i(x) − ∇f(x)‖²."""
    each = A @ x - B
    return float((each - each.mean(0)).square().sum(1).mean())


class Noisy(Oracle):
    """Worker `rank`'s gradients on F4, with Gaussian noise of variance σ² in all, the same at all points of a sample.

    `alike`: every worker's objective is f. `made`: how many gradients it computed.
    """

    def __init__(self, rank, key, sigma2=0.0, alike=False):
        self.rank, self.key, self.sigma2, self.sample = rank, key.fold(role="noise", rank=rank), sigma2, 0
        self.a, self.b = (MEAN_A, MEAN_B) if alike else (A[rank], B[rank])
        self.gradients, self.loss, self.made = 0, 0.0, 0

    def begin(self):
        """Enter a step, with a sample not seen before."""
        self.next_sample()

    @property
    def count(self):
        return 1

    def gradient(self, x):
        self.made += 1
        noise = self.key.fold(sample=self.sample).normal(D) if self.sigma2 else 0.0
        return self.full_gradient(x) + math.sqrt(self.sigma2 / D) * noise

    def next_sample(self):
        self.sample += 1

    def full_gradient(self, x):
        return self.a @ x - self.b


@dataclasses.dataclass
class Now:
    """Where a gradient method's run is: x and the workers' states."""

    x: torch.Tensor
    states: list


def gradient_run(spec, lr, steps, seed=0, oracles=None, down=None):
    """A gradient method's run by plain SGD from 0: `Now` before each of the steps, and after the last.

    `down`: the compressor of what the server sends, where it has one.
    """
    method = tg.method(spec)
    oracles = oracles or [Noisy(rank, tg.Key(seed)) for rank in range(WORKERS)]
    x = torch.zeros(D, dtype=torch.float64)
    states, server = [method.worker_init(D, x.dtype) for _ in oracles], method.server_init(D, x.dtype)
    for index in range(steps):
        yield Now(x, states)
        step = Step(index, lr, tg.Key(seed).fold(step=index), workers=len(oracles))
        step = dataclasses.replace(step, round=method.plan(step))
        sent = [
            method.worker_step(oracle.gradient(x), state, rank, step)
            for rank, (oracle, state) in enumerate(zip(oracles, states, strict=True))
        ]
        for oracle in oracles:
            oracle.begin()
        states = [state for _, state in sent]
        estimate, server = method.server_step([code for code, _ in sent], server, step)
        if down is not None:
            estimate = down.encode(estimate, step.key.fold(role="downlink")).decode()
        x = x - lr * estimate
    yield Now(x, states)


def oracle_method_run(spec, lr, steps, seed=0, oracles=None, clock=None):
    """An oracle method's run, before each of the steps, and after the last; `Noisy` oracles in place of F4's own."""
    run = plain_sgd(oracle_run(f4(), spec, WORKERS, seed=seed, clock=clock))
    run.oracles.update(oracles or {})
    for index in range(steps):
        yield run
        run.step(index, lr)
    yield run
