"""A workload's gradients, looked at early or late in training: what `telegrad diagnose` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from telegrad.errors import ConfigError
from telegrad.random import Key
from telegrad.runtime.setting import OptimizerChoice
from telegrad.runtime.simulate import simulate
from telegrad.spec import build
from telegrad.theory.diagnosis import SPECS, Diagnosis, diagnose
from telegrad.workloads.base import Task, Workload

__all__ = ["diagnose_workload"]


def diagnose_workload(
    workload: str | Workload,
    data: str | None,
    after: int,
    lr: float,
    optimizer: str,
    batch_size: int,
    batches: int,
    workers: int,
    specs: Sequence[str] | None,
    seed: int,
) -> Diagnosis:
    """The gradients of a workload's model after so many steps of uncompressed training with one worker.

    Batches are drawn without replacement from the training split. Raises `ConfigError` where that has too few examples.
    """
    built: Workload = build(workload, "workload")
    task: Task = built.load(None if data is None else Path(data), Key())
    root = Key(seed)
    if len(task.train) < batches * batch_size:
        raise ConfigError(
            f"batches={batches}, batch_size={batch_size}: the training split has {len(task.train)} examples only"
        )
    model = task.model(root.fold(role="model"))
    if after:
        run = simulate(
            task, "sgd(identity)", workers=1, steps=after, lr=lr, optimizer=cast(OptimizerChoice, optimizer),
            batch_size=batch_size, seed=seed,
            evaluate_every=after, gradients="loop",
        )  # fmt: skip
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(run.parameters[name])
    order = root.fold(role="diagnosis").permutation(len(task.train))
    shares = order[: batches * batch_size].view(batches, batch_size)
    looked_at = []
    for number, rows in enumerate(shares):
        batch = task.train.rows(rows)
        looked_at.append((task.augment(batch.inputs, root.fold(role="augment", step=number)), batch.targets))
    return diagnose(model, looked_at, task.loss, specs or SPECS, workers, seed=seed)
