"""A run of a gradient method: every worker's gradient at the common parameters, an exchange, a torch optimizer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from telegrad.methods.clock import Clock
from telegrad.runtime.exchange import Exchange
from telegrad.runtime.gradients import Gradients, stacked_buffers
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.pieces import Piece, by_parameter, split_up
from telegrad.runtime.timeline import Timeline
from telegrad.workloads.base import Split

__all__ = ["GradientRun"]


class GradientRun:
    """The steps of a gradient method on `model`, which holds the parameters. `batch(rank, index)`: a worker's batch."""

    def __init__(
        self,
        exchange: Exchange,
        model: nn.Module,
        pieces: Sequence[Piece],
        compute: Gradients,
        optimizer: torch.optim.Optimizer,
        batch: Callable[[int, int], Split],
        clock: Clock | None,
    ) -> None:
        self.exchange, self.model, self.pieces, self.compute = exchange, model, pieces, compute
        self.optimizer, self.batch = optimizer, batch
        self.parameters = dict(model.named_parameters())
        self.timeline = None if clock is None else Timeline(clock, exchange.transport.workers)
        self.buffers = stacked_buffers(model, len(exchange.transport.ranks))
        self.encode_seconds = 0.0

    @property
    def ledger(self) -> Ledger:
        """The account of the ranks of this process."""
        return self.exchange.ledger

    def step(self, index: int, lr: float) -> float:
        """Make step `index`; returns the workers' mean loss. Raises `NonFiniteError` on all ranks alike."""
        ranks = self.exchange.transport.ranks
        per_worker, losses, buffers = self.compute([self.batch(rank, index) for rank in ranks], self.buffers)
        began = time.perf_counter()
        try:
            self.exchange.begin(index, lr)
            gradients = [split_up(gradient, self.parameters, self.pieces) for gradient in per_worker]
            estimates = by_parameter(self.exchange.run(self.pieces, gradients), self.pieces)
            self.exchange.commit()
        finally:
            self.encode_seconds += time.perf_counter() - began
            self._tell_time(ranks)
        self.buffers = buffers
        self._descend(estimates, lr)
        return float(self.exchange.transport.gathered(losses).mean())

    def show(self) -> None:
        """Set the model to the point that is evaluated: where it is already."""

    def save(self) -> dict[str, Any]:
        """All that a later step depends on but the model's parameters; plain values and tensors."""
        return {
            "exchange": self.exchange.save(),
            "optimizer": self.optimizer.state_dict(),
            "buffers": self.buffers,
            "encode_seconds": self.encode_seconds,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what `save` gave, on a model that holds the parameters of then."""
        self.exchange.load(saved["exchange"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.buffers, self.encode_seconds = saved["buffers"], saved["encode_seconds"]

    def _tell_time(self, ranks: Sequence[int]) -> None:
        """Count this step's gradients, and let the simulated time of the step go by."""
        part = [rank for rank in ranks if self.exchange.takes_part(rank)]
        for rank in part:
            self.ledger.gradients[rank] += 1
        if self.timeline is not None:
            for rank in part:
                self.timeline.compute(rank, 1)
            self.timeline.exchange(self.ledger, dict.fromkeys(part, 1))

    def _descend(self, estimates: dict[str, Tensor], lr: float) -> None:
        for name, parameter in self.parameters.items():
            parameter.grad = estimates[name].view_as(parameter).to(parameter.dtype)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
