"""A run of an outer method: every worker's own model and optimizer, and rounds between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from telegrad.errors import ConfigError, NonFiniteError
from telegrad.methods.clock import Clock
from telegrad.methods.outer_method import OuterMethod
from telegrad.runtime.exchange import Exchange
from telegrad.runtime.gradients import LoopGradients, stacked_buffers
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.outer_loop import OuterLoop, forget_what_is_not_finite
from telegrad.runtime.pieces import Granularity
from telegrad.runtime.timeline import Timeline
from telegrad.workloads.base import Split

__all__ = ["OuterRun"]


class OuterRun:
    """The inner steps of an outer method and its rounds; the global parameters are evaluated. `model`: what gradients
    are computed with. `make_optimizer`: a worker's inner optimizer. `batch(rank, index)`: a worker's batch.
    """

    def __init__(
        self,
        method: OuterMethod,
        exchange: Exchange,
        model: nn.Module,
        granularity: Granularity,
        compute: LoopGradients,
        make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        batch: Callable[[int, int], Split],
        clock: Clock | None,
    ) -> None:
        if clock is not None and method.delay:
            raise ConfigError(
                f"{method}: the simulated clock knows no messages that travel beside steps; write delay=0"
            )
        self.exchange, self.model, self.compute, self.batch = exchange, model, compute, batch
        self.parameters = dict(model.named_parameters())
        ranks = exchange.transport.ranks
        self.workers = [{name: nn.Parameter(p.detach().clone()) for name, p in self.parameters.items()} for _ in ranks]
        self.optimizers = [make_optimizer(list(own.values())) for own in self.workers]
        self.loop = OuterLoop(method, exchange, self.workers, granularity)
        self.timeline = None if clock is None else Timeline(clock, exchange.transport.workers)
        self.buffers = stacked_buffers(model, len(ranks))
        self.encode_seconds = 0.0

    @property
    def ledger(self) -> Ledger:
        """The account of the ranks of this process."""
        return self.exchange.ledger

    def step(self, index: int, lr: float) -> float:
        """Make step `index`; returns the workers' mean loss. Raises `NonFiniteError` on all ranks alike."""
        gradients, losses, buffers = [], [], []
        for place, rank in enumerate(self.exchange.transport.ranks):
            self._load(self.workers[place])
            before = {name: one[place : place + 1] for name, one in self.buffers.items()}
            gradient, loss, after = self.compute([self.batch(rank, index)], before)
            gradients.append(gradient[0])
            losses.append(loss)
            buffers.append(after)
            self.ledger.gradients[rank] += 1
            if self.timeline is not None:
                self.timeline.compute(rank, 1)
        mean = self._checked(gradients, torch.cat(losses))
        self.buffers = {name: torch.cat([one[name] for one in buffers]) for name in self.buffers}
        for own, optimizer, gradient in zip(self.workers, self.optimizers, gradients, strict=True):
            for parameter, part in zip(own.values(), gradient.split([p.numel() for p in own.values()]), strict=True):
                parameter.grad = part.view_as(parameter).to(parameter.dtype)
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        began = time.perf_counter()
        for place in self.loop.after_step():
            forget_what_is_not_finite(self.optimizers[place])
        self.encode_seconds += time.perf_counter() - began
        if self.timeline is not None:
            sends = self.loop.method.leaves_after(self.loop.step) is not None
            self.timeline.exchange(self.ledger, dict.fromkeys(self.exchange.transport.ranks, 1) if sends else {})
        return mean

    def _checked(self, gradients: list[Tensor], losses: Tensor) -> float:
        """The mean loss of all workers. Raises `NonFiniteError`, on all ranks, where a gradient is not finite."""
        transport = self.exchange.transport
        good = [float(bool(gradient.isfinite().all())) for gradient in gradients]
        told = transport.told(torch.stack([losses.double(), torch.tensor(good, dtype=torch.float64)], 1))
        bad = [rank for rank, one in enumerate(told[:, 1].tolist()) if not one]
        if bad:
            raise NonFiniteError(f"worker {bad[0]}: the gradient holds NaN or infinity")
        return float(told[:, 0].mean())

    @torch.no_grad()
    def _load(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def show(self) -> None:
        """Set the model to the global parameters."""
        self._load(self.loop.parameters)

    def save(self) -> dict[str, Any]:
        """All that a later step depends on; plain values and tensors."""
        return {
            "exchange": self.exchange.save(),
            "loop": self.loop.save(),
            "workers": [{name: p.detach() for name, p in own.items()} for own in self.workers],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "buffers": self.buffers,
            "encode_seconds": self.encode_seconds,
        }

    @torch.no_grad()
    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what `save` gave."""
        self.exchange.load(saved["exchange"])
        self.loop.load(saved["loop"])
        for own, values in zip(self.workers, saved["workers"], strict=True):
            for name, parameter in own.items():
                parameter.copy_(values[name])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.buffers, self.encode_seconds = saved["buffers"], saved["encode_seconds"]
