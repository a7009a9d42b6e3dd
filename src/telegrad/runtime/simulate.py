"""The simulator: M workers in one process, on one copy of the model."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError
from telegrad.kernels.device import away_from_default_device
from telegrad.methods.base import Method
from telegrad.methods.clock import Clock
from telegrad.runtime.pieces import Granularity
from telegrad.runtime.schedule import Schedule
from telegrad.runtime.setting import OptimizerChoice, Record, Setting
from telegrad.runtime.snapshots import Snapshots
from telegrad.runtime.topologies import Topology
from telegrad.runtime.training import Result, train
from telegrad.runtime.transport import LocalTransport
from telegrad.workloads.base import Task, Workload

__all__ = ["simulate"]


@away_from_default_device
def simulate(
    workload: str | Workload | Task,
    method: str | Method | Compressor,
    *,
    workers: int = 8,
    steps: int = 300,
    batch_size: int | None = 16,
    lr: float | str = 0.1,
    optimizer: OptimizerChoice = "sgd",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    schedule: Schedule = "constant",
    warmup_steps: int = 0,
    seed: int = 0,
    dirichlet: float | None = None,
    topology: str | Topology = "server",
    granularity: Granularity = "model",
    downlink: str | Compressor | None = None,
    gradients: Literal["vmap", "loop"] = "vmap",
    chunk: int | None = None,
    evaluate_every: int | None = None,
    data: str | Path | None = None,
    clock: Clock | None = None,
    progress: Callable[[Record], None] | None = None,
    snapshots: Snapshots | None = None,
    **unknown: Any,
) -> Result:
    """Train a workload with M workers under a method, all in this process, and account for every bit.

    Args:
        workload: a spec such as "digits", or a `tg.task` made from your own model.
        method: a spec such as "ef21(topk(k=0.01))"; a compressor C stands for sgd(C).
        workers: the number M of workers.
        steps: steps of the run.
        batch_size: examples a worker and step; None: all of its examples.
        lr: the (peak) learning rate; or "theory", what theory gives the method on a quadratic or logistic workload, or
            a multiple of it such as "theory*8": the rate taken is printed.
        optimizer: "sgd", "adamw", or a function of (parameters, lr) that makes a torch optimizer.
        momentum: of optimizer "sgd".
        weight_decay: of the optimizer.
        schedule: of the learning rate: "constant", "linear" or "cosine".
        warmup_steps: steps of linear warm-up.
        seed: decides first parameters, the split over workers, batches and every draw of the compressors.
        dirichlet: concentration of the classes of a worker (small: unlike workers; 0: examples sorted by class, in
            equal shares); None: equal shares at random.
        topology: how messages travel: "server", "allgather", "two_phase", "hierarchical(node=2)".
        granularity: what one compressor call sees: the "model", a "bucket" of tensors, or each "tensor".
        downlink: an unbiased compressor of what servers send; None: the topology's usual one.
        gradients: "vmap" computes all workers' gradients at once, "loop" one after the other; they differ in last bits.
        chunk: workers at once under "vmap", to save memory; None: all.
        evaluate_every: steps between evaluations; None: a twentieth of all.
        data: the folder of the workload's data, where it needs one.
        clock: how long simulated work takes; records then have `simulated_seconds`.
        progress: called after every step with the last evaluation's record, the `step` and its `train_loss`.
        snapshots: where the state is kept, and found again after an interruption; not with a clock.

    Returns:
        The records, the ledger of bits and the final parameters.

    Raises:
        ConfigError: an argument is misspelt or has a bad value.
        SpecError: a spec is wrong, or its parts do not fit each other.
        DataError: the workload's data are missing.
        DivergedError: ten steps in a row had no finite gradient; it holds the records so far.

    Example:
        >>> result = tg.simulate("digits", "mlmc(stopk(s=0.01))", workers=4, steps=100, lr=0.1)
        >>> result.records[-1]["test"] > 0.8, result.ledger.bits_up_per_worker / 8e3 < 100  # accuracy; kilobytes
        (True, True)
    """
    given = locals()  # the arguments: one list of their names is enough
    setting = Setting.of({**{name: given[name] for name in Setting.__dataclass_fields__}, **unknown})
    if isinstance(workers, bool) or not isinstance(workers, numbers.Integral) or workers < 1:
        raise ConfigError(f"workers={workers!r}: an integer from 1 is allowed")
    return train(workload, method, LocalTransport(int(workers)), setting)
