"""A worker's oracle: gradients on its own examples, by ordinary backward passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from telegrad.errors import NonFiniteError
from telegrad.methods.oracle_method import Oracle
from telegrad.runtime.flat import FlatModel
from telegrad.workloads.base import Split, Task

__all__ = ["TaskOracle"]

_ROWS = 1024  # of all examples, in one backward pass


class TaskOracle(Oracle):
    """Worker `rank`'s gradients of `task`. What it computes with, `model`, is left at the last point asked for.

    `sample(number)`: the worker's batch of that number. `examples`: all it has. `buffers`: its own BatchNorm
    statistics, which the first gradient on a sample brings forward. `gradients`: how many it computed in this step, in
    units of one batch; `loss`: that of the step's first one, NaN before.
    """

    def __init__(
        self,
        rank: int,
        task: Task,
        model: nn.Module,
        flat: FlatModel,
        sample: Callable[[int], Split],
        examples: Split,
        batch_size: int | None,
    ) -> None:
        self.rank, self.task, self.model, self.flat = rank, task, model, flat
        self.sample, self.examples, self.batch_size = sample, examples, batch_size or len(examples)
        self.buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self._number, self._used = 0, False
        self._batch: Split | None = None
        self.gradients, self.loss = 0.0, math.nan

    @property
    def count(self) -> int:
        return len(self.examples)

    def save(self) -> dict[str, Any]:
        """What its next gradients depend on but the point: the sample it is at, and its buffers."""
        return {"number": self._number, "used": self._used, "buffers": self.buffers}

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what `save` gave."""
        self._number, self._used, self._batch = saved["number"], saved["used"], None
        self.buffers = saved["buffers"]

    def begin(self) -> None:
        """Enter a step, with a sample not seen before."""
        if self._used:
            self.next_sample()
        self.gradients, self.loss = 0.0, math.nan

    def next_sample(self) -> None:
        self._number, self._batch, self._used = self._number + 1, None, False

    def gradient(self, x: Tensor) -> Tensor:
        if self._batch is None:
            self._batch = self.sample(self._number)
        kept = None if not self._used else self.buffers
        self._used = True
        gradient, loss = self._backward(x, self._batch, kept)
        if math.isnan(self.loss):
            self.loss = loss
        self.gradients += 1
        return self._finite(gradient)

    def full_gradient(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for start in range(0, len(self.examples), _ROWS):
            rows = torch.arange(start, min(start + _ROWS, len(self.examples)))
            part = Split(self.examples.inputs[rows], self.examples.targets[rows])
            gradient, loss = self._backward(x, part, self.buffers)
            total += gradient * (len(part) / len(self.examples))
        if math.isnan(self.loss):
            self.loss = loss
        self.gradients += len(self.examples) / self.batch_size
        return self._finite(total)

    def _backward(self, x: Tensor, batch: Split, kept: dict[str, Tensor] | None) -> tuple[Tensor, float]:
        """The gradient and the loss at x; the buffers afterwards are the `kept` ones, where such are given."""
        self.flat.load(x)
        self.model.train()
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(self.buffers[name])
        self.model.zero_grad(set_to_none=True)
        loss = self.task.loss(self.model, batch.inputs, batch.targets)
        loss.backward()
        if kept is None:
            self.buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        named = self.flat.parameters.items()
        grads = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named}
        return self.flat.joined(grads), float(loss.detach())

    def _finite(self, gradient: Tensor) -> Tensor:
        if not bool(gradient.isfinite().all()):
            raise NonFiniteError(f"worker {self.rank}: the gradient holds NaN or infinity")
        return gradient
