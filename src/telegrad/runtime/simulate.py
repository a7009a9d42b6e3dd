"""The simulator: M workers in one process, on one copy of the model."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, DivergedError, NonFiniteError, SpecError, TelegradWarning
from telegrad.methods.base import Method
from telegrad.random import Key
from telegrad.runtime.exchange import Exchange, Granularity, pieces_of
from telegrad.runtime.gradients import LoopGradients, VectorisedGradients, load_mean_buffers, stacked_buffers
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.partition import batch_rows, partition
from telegrad.runtime.schedule import Schedule, learning_rate
from telegrad.spec import build
from telegrad.workloads.base import Split, Task, Workload

__all__ = ["OptimizerChoice", "Record", "Result", "simulate"]

Record = dict[str, float | int]
OptimizerChoice = Literal["sgd", "adamw"] | Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]

_PATIENCE = 10


@dataclass(frozen=True)
class Result:
    """What a run leaves.

    `records`: one dict an evaluation, the first at step 0 and the last at the last step, with the keys `step`, `epoch`,
    `bits_up_per_worker`, `bits_down_per_worker`, `paper_bits_up_per_worker`, `train_loss` (mean over the steps since
    the last evaluation; NaN at step 0), `validation`, `test` (the metric on these splits), `seconds` (training so far,
    without evaluation), `encode_seconds` (the part of it spent in the methods' worker and server steps).
    `ledger`: the account of bits; `parameters`: the final ones by name; `metric`, `higher_is_better`: the task's.
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
    method: str | Method,
    *,
    workers: int = 8,
    steps: int = 300,
    batch_size: int | None = 16,
    lr: float = 0.1,
    optimizer: OptimizerChoice = "sgd",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    schedule: Schedule = "constant",
    warmup_steps: int = 0,
    seed: int = 0,
    dirichlet: float | None = None,
    granularity: Granularity = "model",
    downlink: str | Compressor = "identity",
    gradients: Literal["vmap", "loop"] = "vmap",
    chunk: int | None = None,
    evaluate_every: int | None = None,
    data: str | Path | None = None,
    progress: Callable[[Record], None] | None = None,
) -> Result:
    """Train `workload` with `workers` workers under `method`, all in this process, and account for every bit.

    Every step, each worker computes the gradient of its own batch of `batch_size` examples (None: all of its examples)
    and sends what the method makes of it; the server's estimate goes back through the unbiased compressor `downlink`
    and is the gradient of the torch optimizer: `optimizer` "sgd" with `momentum`, "adamw", or a function of parameters
    and lr.
    `seed` decides first parameters, the split over workers (`dirichlet`: heterogeneous, see `partition`), batches and
    every draw of the compressors; torch's global generator is neither used nor changed. The split into train,
    validation and test is the same for all seeds. `gradients`: "vmap" computes all workers at once, in chunks of
    `chunk`; "loop" each one as a lone process would; they differ in the last bits of gradients, never in a draw.
    `granularity`: what one compressor call sees. `evaluate_every`: steps between evaluations, a twentieth of all by
    default. `progress` is called after every step with the last evaluation's record, the current `step` and its
    `train_loss`.

    A step with a non-finite gradient is skipped on all workers, leaves no trace in any state, and is counted.
    Raises `DivergedError` (with `.records`) after ten such steps in a row; `SpecError`, `ConfigError` and `DataError`
    before the first step.
    """
    chosen, down = build(method, "method"), build(downlink, "compressor")
    every = max(1, steps // 20) if evaluate_every is None else evaluate_every
    _check(
        down,
        steps=(steps, 0),
        batch_size=(batch_size, 1),
        warmup_steps=(warmup_steps, 0),
        workers=(workers, 1),
        evaluate_every=(every, 1),
    )
    root = Key(seed)
    task = (
        workload
        if isinstance(workload, Task)
        else build(workload, "workload").load(Path(data) if data is not None else None, Key())
    )
    model = task.model(root.fold(role="model"))
    shares = partition(
        task.train.targets, task.classes, workers, dirichlet, batch_size or 1, root.fold(role="partition")
    )
    compute = LoopGradients(task, model) if gradients == "loop" else VectorisedGradients(task, model, chunk)
    buffers = stacked_buffers(model, workers)
    exchange = Exchange(chosen, down, pieces_of(model, granularity), workers, next(model.parameters()).dtype, root)
    ledger, descent = exchange.ledger, _optimizer(optimizer, model, lr, momentum, weight_decay)
    examples_a_step = sum(len(share) for share in shares) if batch_size is None else workers * batch_size
    seconds = encode_seconds = 0.0
    skipped_in_a_row = 0
    losses: list[float] = []
    records: list[Record] = []

    def evaluate(step: int) -> None:
        load_mean_buffers(model, buffers)
        records.append(
            {
                "step": step,
                "epoch": step * examples_a_step / len(task.train),
                "bits_up_per_worker": ledger.bits_up_per_worker,
                "bits_down_per_worker": ledger.bits_down_per_worker,
                "paper_bits_up_per_worker": ledger.paper_bits_up_per_worker,
                "train_loss": math.fsum(losses) / len(losses) if losses else math.nan,
                "validation": task.score(model, task.validation),
                "test": task.score(model, task.test),
                "seconds": seconds,
                "encode_seconds": encode_seconds,
            }
        )
        losses.clear()

    evaluate(0)
    for index in range(steps):
        began = time.perf_counter()
        rate = learning_rate(schedule, lr, index, steps, warmup_steps)
        batches = [
            _batch(task, share, index, batch_size, root.fold(role="data", rank=rank))
            for rank, share in enumerate(shares)
        ]
        per_worker, batch_losses, new_buffers = compute(batches, buffers)
        computed = time.perf_counter()
        try:
            estimate = exchange.round(per_worker, index, rate)
        except NonFiniteError as error:
            skipped_in_a_row += 1
            ledger.skipped_steps += 1
            if ledger.skipped_steps == 1:
                warnings.warn(f"step {index} is skipped on all workers: {error}", TelegradWarning, stacklevel=2)
            if skipped_in_a_row == _PATIENCE:
                raise DivergedError(
                    f"{chosen} with lr={lr}: no finite gradient in the last {_PATIENCE} steps; lower the rate",
                    records,
                ) from None
            encode_seconds += time.perf_counter() - computed
        else:
            encode_seconds += time.perf_counter() - computed
            skipped_in_a_row, buffers = 0, new_buffers
            _descend(descent, model, estimate, rate)
            losses.append(float(batch_losses.mean()))
        ledger.steps += 1
        seconds += time.perf_counter() - began
        if (index + 1) % every == 0 or index + 1 == steps:
            evaluate(index + 1)
        if progress is not None:
            progress({**records[-1], "step": index + 1, "train_loss": float(batch_losses.mean())})
    parameters = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    count = max(1, steps)
    return Result(
        records, ledger, parameters, task.metric, task.higher_is_better, seconds / count, encode_seconds / count
    )


def _check(downlink: Compressor, **at_least: tuple[int | None, int]) -> None:
    for name, (value, lowest) in at_least.items():
        if value is not None and value < lowest:
            raise ConfigError(f"{name}={value}: a number from {lowest} is allowed")
    if not downlink.unbiased:
        raise SpecError(
            f"downlink={downlink} is biased, and the server has no error memory; write for example downlink=identity"
        )


def _batch(task: Task, rows: Tensor, step: int, batch_size: int | None, key: Key) -> Split:
    batch = task.train.rows(batch_rows(rows, step, batch_size, key))
    return Split(task.augment(batch.inputs, key.fold(role="augment", step=step)), batch.targets)


def _optimizer(
    choice: OptimizerChoice, model: nn.Module, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    if callable(choice):
        return choice(model.parameters(), lr)
    if choice == "sgd":
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    if choice == "adamw":
        if momentum:
            raise ConfigError(f"momentum={momentum} goes with optimizer=sgd; adamw has its own averages")
        return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    raise ConfigError(f"optimizer={choice!r}: sgd, adamw, or a function of (parameters, lr) is allowed")


def _descend(optimizer: torch.optim.Optimizer, model: nn.Module, estimate: Tensor, lr: float) -> None:
    start = 0
    for parameter in model.parameters():
        parameter.grad = estimate[start : start + parameter.numel()].view_as(parameter).to(parameter.dtype)
        start += parameter.numel()
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
