"""A problem of the comparison: logistic regression on one data set, its workers, and the constants that bounds take."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import telegrad as tg
from telegrad.errors import DivergedError
from telegrad.methods import Clock
from telegrad.random import Key
from telegrad.runtime.partition import partition
from telegrad.spec import build
from telegrad.theory.known_problems import Problem, problem_of
from telegrad.workloads.base import Split
from telegrad.workloads.logistic import LogisticTask

DATASETS = ("mushrooms", "phishing", "a9a", "w8a")
REGULARISERS = {"l2": (1e-3, 0.0), "nonconvex": (0.0, 0.1)}
SPLITS = {"random": None, "sorted": 0.0}
CLOCK = Clock(gradient=1e-3, latency=1e-3, bandwidth=1e6)
"""A millisecond a gradient, a millisecond and 1 Mbit/s a message."""

RANDK, TOPK, MLMC = "randk(k=0.05)", "topk(k=0.05)", "mlmc(stopk(s=0.05))"


class GradientTask(LogisticTask):
    """The same task, scored by ‖∇f‖² over the training data."""

    def score(self, model: nn.Module, split: Split) -> float:
        if len(split) < len(self.train):
            return math.nan
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.loss(model, split.inputs, split.targets), list(model.parameters()))
        return float(gradient.square().sum())


@lru_cache(maxsize=1)
def task_of(dataset: str, regulariser: str, data: Path) -> GradientTask:
    l2, nonconvex = REGULARISERS[regulariser]
    task = build(f"logistic(dataset={dataset}, l2={l2}, nonconvex={nonconvex})", "workload").load(data, Key())
    own = {one.name: getattr(task, one.name) for one in fields(task)}
    return GradientTask(**(own | {"validation": task.train, "test": task.train.rows(torch.arange(0))}))


@dataclass(frozen=True)
class Case:
    """A problem: data, regulariser, workers and split, with the constants that bounds take. Vectors are float64."""

    dataset: str
    regulariser: str
    workers: int
    split: str
    data: Path

    @property
    def head(self) -> dict[str, Any]:
        """What a row of results says of its problem."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "data"}

    @property
    def task(self) -> GradientTask:
        return task_of(self.dataset, self.regulariser, self.data)

    @cached_property
    def shares(self) -> list[Tensor]:
        key = Key(0).fold(role="partition")
        return partition(self.task.train.targets, 2, self.workers, SPLITS[self.split], 1, key)

    @cached_property
    def problem(self) -> Problem:
        return problem_of(self.task, self.shares)

    @property
    def d(self) -> int:
        return self.task.train.inputs.shape[1]

    @property
    def convex(self) -> bool:
        return self.regulariser == "l2"

    @cached_property
    def optimum(self) -> Tensor:
        """x* of the convex problem, by L-BFGS."""
        task, model = self._exact()
        solver = torch.optim.LBFGS(
            model.parameters(), max_iter=2000, tolerance_grad=1e-10, tolerance_change=0.0, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            solver.zero_grad()
            loss = task.loss(model, task.train.inputs, task.train.targets)
            loss.backward()
            return loss

        solver.step(closure)
        return model.x.detach()

    @cached_property
    def gap(self) -> float:
        """f(0) − f*, with 0 for f* where f is not convex: f is not below it."""
        task, model = self._exact()
        first = float(task.loss(model, task.train.inputs, task.train.targets))
        if not self.convex:
            return first
        model.x.data.copy_(self.optimum)
        return first - float(task.loss(model, task.train.inputs, task.train.targets))

    def energy(self, x: Tensor) -> float:
        """mean ‖∇f_i(x)‖²."""
        task, model = self._exact()
        model.x.data.copy_(x)
        total = 0.0
        for share in self.shares:
            own = task.train.rows(share)
            (gradient,) = torch.autograd.grad(task.loss(model, own.inputs, own.targets), [model.x])
            total += float(gradient.square().sum())
        return total / self.workers

    @cached_property
    def first_energy(self) -> float:
        return self.energy(torch.zeros(self.d, dtype=torch.float64))

    @cached_property
    def optimum_energy(self) -> float:
        return self.energy(self.optimum)

    @cached_property
    def distance(self) -> float:
        return float(self.optimum.norm())

    def _exact(self) -> tuple[LogisticTask, nn.Module]:
        train = self.task.train
        task = replace(self.task, train=Split(train.inputs.double(), train.targets.double()))
        return task, task.model(Key())

    def train(self, method: str, steps: int, lr: float, every: int = 1, clock: Clock | None = None) -> tg.Result | None:
        """A run, with a look at the gradient every so many steps; None where it diverges."""
        warnings.simplefilter("ignore")
        dirichlet = SPLITS[self.split]
        try:
            return tg.simulate(
                self.task, method, workers=self.workers, steps=steps, batch_size=None, lr=lr, dirichlet=dirichlet,
                evaluate_every=every, clock=clock,
            )  # fmt: skip
        except DivergedError:
            return None

    def omega(self, compressor: str) -> float:
        return tg.compressor(compressor).omega(self.d)

    def alpha(self, compressor: str) -> float:
        return tg.compressor(compressor).alpha(self.d)
