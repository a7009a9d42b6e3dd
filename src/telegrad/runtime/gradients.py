"""Per-worker gradients on one copy of the model: vectorised over workers, or one worker after another."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from telegrad.errors import ConfigError, TelegradWarning
from telegrad.workloads.base import Split, Task

__all__ = ["Gradients", "LoopGradients", "VectorisedGradients", "load_mean_buffers", "stacked_buffers"]

Buffers = dict[str, Tensor]

_VMAP_ENTRIES = 50_000_000


class Gradients(ABC):
    """Computes, at the model's current parameters, every worker's gradient on its own batch."""

    @abstractmethod
    def __call__(self, batches: Sequence[Split], buffers: Buffers) -> tuple[Tensor, Tensor, Buffers]:
        """(gradients, losses, buffers) for one batch a worker.

        gradients: shape (M, d), parameters flattened in the order of `model.parameters()`; losses: shape (M,);
        buffers: the workers' own buffers (BatchNorm statistics) after the step, stacked along a first dimension of M.
        """


class LoopGradients(Gradients):
    """One worker after another, each by an ordinary backward pass, just as a lone process would compute it."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        self.task, self.model = task, model

    def __call__(self, batches: Sequence[Split], buffers: Buffers) -> tuple[Tensor, Tensor, Buffers]:
        rows, losses, after = [], [], []
        self.model.train()
        for worker, batch in enumerate(batches):
            for name, buffer in self.model.named_buffers():
                buffer.copy_(buffers[name][worker])
            self.model.zero_grad(set_to_none=True)
            loss = self.task.loss(self.model, batch.inputs, batch.targets)
            loss.backward()
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.model.parameters()]
            rows.append(torch.cat([grad.reshape(-1) for grad in grads]))
            losses.append(loss.detach())
            after.append({name: buffer.clone() for name, buffer in self.model.named_buffers()})
        self.model.zero_grad(set_to_none=True)
        return (
            torch.stack(rows),
            torch.stack(losses),
            {name: torch.stack([one[name] for one in after]) for name in buffers},
        )


class _Objective(nn.Module):
    """The task's loss as a module, so that functional_call can swap the parameters underneath it."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(self.model, inputs, targets)


class VectorisedGradients(Gradients):
    """All workers at once by torch.func, in chunks of `chunk` workers (by default as many as make 5·10⁷ gradient
    entries).

    Where the model cannot be vectorised, or batches differ in size, falls back to the plain loop, and says so once.
    """

    def __init__(self, task: Task, model: nn.Module, chunk: int | None) -> None:
        if chunk is not None and chunk < 1:
            raise ConfigError(f"chunk={chunk}: a number of workers from 1 is allowed")
        self.loop = LoopGradients(task, model)
        self.model, self.objective, self.works = model, _Objective(task, model), True
        entries = sum(p.numel() for p in model.parameters())
        self.chunk = chunk or max(1, _VMAP_ENTRIES // max(1, entries))
        self._seen: tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]] = [], (torch.empty(0), torch.empty(0))

    def __call__(self, batches: Sequence[Split], buffers: Buffers) -> tuple[Tensor, Tensor, Buffers]:
        if not self.works or len({len(batch) for batch in batches}) > 1:
            return self.loop(batches, buffers)
        try:
            return self._vectorised(batches, buffers)
        except RuntimeError as error:
            self.works = False
            reason = str(error).strip().splitlines()[0]
            warnings.warn(
                f"this model cannot be vectorised over workers, using the plain loop: {reason}",
                TelegradWarning,
                stacklevel=2,
            )
            return self.loop(batches, buffers)

    def _vectorised(self, batches: Sequence[Split], buffers: Buffers) -> tuple[Tensor, Tensor, Buffers]:
        self.model.train()
        parameters = {name: p.detach() for name, p in self.objective.named_parameters()}
        own = {f"model.{name}": buffer.clone() for name, buffer in buffers.items()}
        inputs, targets = self._stacked(batches)

        def loss(parameters: Buffers, own: Buffers, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Buffers]:
            value = torch.func.functional_call(self.objective, (parameters, own), (inputs, targets))
            return value, own

        over_workers = torch.func.vmap(
            torch.func.grad_and_value(loss, has_aux=True), in_dims=(None, 0, 0, 0), chunk_size=self.chunk
        )
        grads, (losses, after) = cast(Any, over_workers(parameters, own, inputs, targets))
        flat = torch.cat([grads[name].flatten(1) for name in parameters], dim=1)
        return flat, losses.detach(), {name: after[f"model.{name}"] for name in buffers}

    def _stacked(self, batches: Sequence[Split]) -> tuple[Tensor, Tensor]:
        """Inputs and targets of all batches; kept for the next call, which may bring the very same."""
        parts = [(batch.inputs, batch.targets) for batch in batches]
        seen, stacked = self._seen
        if len(seen) != len(parts) or any(a is not c or b is not d for (a, b), (c, d) in zip(seen, parts, strict=True)):
            stacked = torch.stack([one for one, _ in parts]), torch.stack([one for _, one in parts])
            self._seen = parts, stacked
        return stacked


def stacked_buffers(model: nn.Module, workers: int) -> Buffers:
    """The model's buffers, once for every worker: shape (M, …)."""
    return {name: torch.stack([buffer] * workers) for name, buffer in model.named_buffers()}


def load_mean_buffers(model: nn.Module, buffers: Buffers) -> None:
    """Set the model's buffers to the workers' mean (integer ones to the first worker's), for evaluation."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            own = buffers[name]
            buffer.copy_(own.mean(0) if own.is_floating_point() else own[0])
