"""Training by an asynchronous method with a process a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from telegrad.errors import ConfigError
from telegrad.methods.asynchronous_method import AsynchronousMethod
from telegrad.methods.clock import Clock
from telegrad.methods.oracle_method import OracleStep
from telegrad.runtime.asynchronous import AsynchronousServer, AsynchronousWorker
from telegrad.runtime.asynchronous_processes import Look, run_processes
from telegrad.runtime.flat import FlatModel, OptimizerStep
from telegrad.runtime.oracle import TaskOracle
from telegrad.runtime.result import Result, evaluation
from telegrad.runtime.schedule import learning_rate
from telegrad.runtime.setting import Setting
from telegrad.runtime.transport import Transport
from telegrad.workloads.base import Task

__all__ = ["train_asynchronously"]


def train_asynchronously(
    method: AsynchronousMethod,
    setting: Setting,
    transport: Transport,
    task: Task,
    model: nn.Module,
    first: OracleStep,
    flat: FlatModel,
    oracles: Mapping[int, TaskOracle],
    make_optimizer: Callable[[], OptimizerStep],
    clock: Clock | None,
    examples_a_gradient: float,
) -> Result:
    """A run of `setting.steps` arrivals, the same result on all ranks; every rank must call this.

    Nothing waits for evaluations: x is kept where one is due, and scored by rank 0 when the run has ended. Raises
    `ConfigError` for a model with buffers, of which every worker has its own.
    """
    if list(model.buffers()):
        raise ConfigError(f"{method} on processes trains models without buffers: each worker's own would be lost")
    if setting.snapshots is not None or clock is not None:
        raise ConfigError(f"{method} on processes runs by their own time, and keeps no snapshots: leave out both")
    steps = setting.steps
    every = max(1, steps // 20) if setting.evaluate_every is None else setting.evaluate_every
    rates = [
        learning_rate(setting.schedule, setting.rate, index, steps, setting.warmup_steps) for index in range(steps)
    ]
    start, (oracle,) = flat.vector(), oracles.values()
    looks = run_processes(
        transport,
        first,
        AsynchronousWorker(method, oracle, first, start),
        lambda: AsynchronousServer(method, first, start, make_optimizer),
        rates,
        every,
    )
    found: Result | None = transport.objects(_result(looks, task, model, flat, examples_a_gradient) if looks else None)[
        0
    ]
    assert found is not None  # rank 0 has it
    return found


def _result(looks: list[Look], task: Task, model: nn.Module, flat: FlatModel, examples_a_gradient: float) -> Result:
    records = []
    for look in looks:
        flat.load(look.x)
        own = evaluation(task, model, look.ledger, examples_a_gradient, look.step, look.losses, look.seconds, 0.0)
        records.append(own)
    last, final = looks[-1], {name: p.detach().clone() for name, p in flat.parameters.items()}
    each = last.seconds / max(1, last.step)
    return Result(records, last.ledger, final, task.metric, task.higher_is_better, each, 0.0)
