"""The simulator: M workers in one process (interface; the body follows)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from telegrad.runtime.ledger import Ledger
from telegrad.workloads.base import Task, Workload

__all__ = ["Record", "Result", "simulate"]

Record = dict[str, float | int]


@dataclass(frozen=True)
class Result:
    """What a run leaves.

    `records`: one dict an evaluation, the first at step 0 and the last at the last step, with the keys
    `step`, `epoch` (float), `bits_up_per_worker`, `bits_down_per_worker`, `paper_bits_up_per_worker`, `train_loss` (mean
    over the steps since the last evaluation; NaN at step 0), `validation`, `test` (the metric on these splits), `seconds` (training time so far, evaluation
    excluded), `encode_seconds` (of which in the methods' worker and server steps).
    """

    records: list[Record]
    ledger: Ledger
    parameters: dict[str, Tensor]
    metric: str
    higher_is_better: bool
    seconds_per_step: float
    encode_seconds_per_step: float


def simulate(
    workload: str | Workload | Task,
    method: Any,
    *,
    workers: int = 8,
    steps: int = 300,
    batch_size: int = 16,
    lr: float = 0.1,
    optimizer: Literal["sgd", "adamw"] = "sgd",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    schedule: Literal["constant", "linear", "cosine"] = "constant",
    warmup_steps: int = 0,
    seed: int = 0,
    dirichlet: float | None = None,
    granularity: Literal["model", "tensor"] = "model",
    downlink: Any = "identity",
    gradients: Literal["vmap", "loop"] = "vmap",
    chunk: int | None = None,
    evaluate_every: int | None = None,
    data: str | Path | None = None,
    progress: Callable[[Record], None] | None = None,
) -> Result:
    """Raises DivergedError (with `.records` so far) once ten steps in a row had a non-finite gradient."""
    raise NotImplementedError
