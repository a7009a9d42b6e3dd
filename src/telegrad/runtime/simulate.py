"""The simulator: M workers in one process, on one copy of the model."""

from __future__ import annotations

from typing import Any

from telegrad.errors import ConfigError
from telegrad.kernels.device import away_from_default_device
from telegrad.methods.base import Method
from telegrad.runtime.training import Result, Setting, train
from telegrad.runtime.transport import LocalTransport
from telegrad.workloads.base import Task, Workload

__all__ = ["simulate"]


@away_from_default_device
def simulate(workload: str | Workload | Task, method: str | Method, *, workers: int = 8, **setting: Any) -> Result:
    """Train `workload` with `workers` workers under `method`, all in this process, and account for every bit.

    `setting`: the fields of `telegrad.runtime.training.Setting`: steps, batch_size, lr, optimizer, momentum,
    weight_decay, schedule, warmup_steps, seed, dirichlet, topology, granularity, downlink, gradients, chunk,
    evaluate_every, data, clock, progress, snapshots. Errors are those of `telegrad.runtime.training.train`.
    """
    if workers < 1:
        raise ConfigError(f"workers={workers}: a number from 1 is allowed")
    return train(workload, method, LocalTransport(workers), Setting(**setting))
