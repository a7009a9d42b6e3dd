"""A worker's oracle: gradients on its own examples, by ordinary backward passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from telegrad.errors import InputError, NonFiniteError
from telegrad.methods.oracle_method import Oracle
from telegrad.runtime.flat import FlatModel
from telegrad.workloads.base import Split, Task

__all__ = ["TaskOracle"]

_ROWS = 1024  # of all examples, in one backward pass


class OthersToo(Protocol):
    """What computes gradients of several oracles at once (`telegrad.runtime.together`)."""

    def find(self, rank: int, x: Tensor, full: bool) -> tuple[Tensor, float] | None: ...


class TaskOracle(Oracle):
    """Worker `rank`'s gradients of `task`. What it computes with, `model`, is left at the last point asked for.

    `sample(number)`: the worker's batch of that number. `examples`: all it has. `buffers`: its own BatchNorm
    statistics, which the first gradient on a sample brings forward. `gradients`: how many it computed in this step, in
    units of one batch; `loss`: that of the step's first one, NaN before. `together`: what it is computed by, where
    several workers ask for the same.
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
        self.whole, self.together = batch_size is None, None  # type: bool, OthersToo | None
        self.buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self._number, self._used, self._first = 0, False, 0
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
        self.gradients, self.loss, self._first = 0.0, math.nan, self._number

    @property
    def at_first_sample(self) -> bool:
        """Whether it is still at the sample with which it entered the step."""
        return self._number == self._first

    @property
    def batch(self) -> Split:
        """The present sample."""
        if self._batch is None:
            self._batch = self.sample(self._number)
        return self._batch

    def next_sample(self) -> None:
        self._number, self._batch, self._used = self._number + 1, None, False

    def gradient(self, x: Tensor) -> Tensor:
        self._require_point(x)
        known = None if self.together is None else self.together.find(self.rank, x, full=False)
        if known is None:
            known = self._backward(x, self.batch, self.buffers if self._used else None)
        self._used = True
        self.gradients += 1
        return self._told(*known)

    def full_gradient(self, x: Tensor) -> Tensor:
        self._require_point(x)
        self.gradients += len(self.examples) / self.batch_size
        known = None if self.together is None else self.together.find(self.rank, x, full=True)
        if known is not None:
            return self._told(*known)
        total, loss = torch.zeros_like(x), math.nan
        for start in range(0, len(self.examples), _ROWS):
            rows = torch.arange(start, min(start + _ROWS, len(self.examples)))
            part = Split(self.examples.inputs[rows], self.examples.targets[rows])
            gradient, own = self._backward(x, part, self.buffers)
            total += gradient * (len(part) / len(self.examples))
            loss = own if math.isnan(loss) else loss
        return self._told(total, loss)

    def _require_point(self, x: Tensor) -> None:
        if not isinstance(x, Tensor) or x.shape != (self.flat.numel,):
            given = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
            raise InputError(
                f"a gradient was asked for at a point of {given}; a flat tensor over the whole model is wanted, "
                f"of shape ({self.flat.numel},)"
            )

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

    def _told(self, gradient: Tensor, loss: float) -> Tensor:
        """The gradient, once it is known to be finite."""
        if math.isnan(self.loss):
            self.loss = loss
        if not bool(gradient.isfinite().all()):
            raise NonFiniteError(f"worker {self.rank}: the gradient holds NaN or infinity")
        return gradient
