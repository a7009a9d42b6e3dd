"""Drives worker and server steps by hand: plain SGD on the server's estimate, states checked to be left alone."""

from dataclasses import replace

import pytest
import torch

import telegrad as tg
from problems import t2_gradients
from telegrad.methods.base import Step


class Drive:
    """M workers and a server; `step` returns the estimate and moves `x` by it."""

    def __init__(self, spec, gradients, d, dtype=torch.float64, seed=0):
        self.method = tg.method(spec)
        self.gradients = gradients
        self.x = torch.zeros(d, dtype=dtype)
        self.index, self.key, self.dtype = 0, tg.Key(seed), dtype
        self.server = self.method.server_init(d, dtype)
        self.workers = None

    def step(self, lr=0.25):
        gradients = self.gradients(self.x)
        if self.workers is None:
            self.workers = [self.method.worker_init(len(self.x), self.dtype) for _ in gradients]
        step = Step(self.index, lr, self.key.fold(step=self.index), workers=len(gradients))
        step = replace(step, round=self.method.plan(step))
        before = [_frozen(state) for state in (*self.workers, self.server)]
        codes, workers = [], []
        for rank, (gradient, state) in enumerate(zip(gradients, self.workers, strict=True)):
            held = gradient.clone()
            code, state = self.method.worker_step(gradient, state, rank, step)
            assert torch.equal(gradient, held)
            codes.append(code)
            workers.append(state)
        estimate, server = self.method.server_step(codes, self.server, step)
        after = [_frozen(state) for state in (*self.workers, self.server)]
        assert before == after, "a step changed a state in place"
        self.workers, self.server, self.codes = workers, server, codes
        self.x = self.x - lr * estimate
        self.index += 1
        return estimate


def _frozen(state):
    return {name: tensor.tolist() for name, tensor in state.items()}


@pytest.fixture
def drive():
    return Drive


@pytest.fixture
def t2():
    """A drive of a method over T2."""
    return lambda spec: Drive(spec, t2_gradients, 2)


@pytest.fixture
def noisy_gradients():
    """Gradients of M random functions of d entries, another draw in every step."""

    def make(workers, d, dtype=torch.float64):
        generator = torch.Generator().manual_seed(5)

        def gradients(x):
            noise = torch.randn(workers, d, generator=generator, dtype=torch.float64) ** 3
            return list((noise + 0.3 * x).to(dtype))

        return gradients

    return make
