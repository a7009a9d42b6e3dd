"""The training loop: one for the simulator and for torch.distributed."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

from torch import Tensor, nn

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, DivergedError, NonFiniteError, TelegradWarning
from telegrad.methods.asynchronous_method import AsynchronousMethod
from telegrad.methods.base import Method
from telegrad.random import Key
from telegrad.runtime.asynchronous_run import AsynchronousRun
from telegrad.runtime.asynchronous_training import train_asynchronously
from telegrad.runtime.gradient_run import GradientRun
from telegrad.runtime.gradients import load_mean_buffers
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.oracle_run import OracleRun
from telegrad.runtime.outer_run import OuterRun
from telegrad.runtime.partition import batch_rows, partition
from telegrad.runtime.result import Result, evaluation
from telegrad.runtime.runs import Parts, Run, asynchronous_parts, run_of
from telegrad.runtime.schedule import learning_rate
from telegrad.runtime.setting import Record, Setting
from telegrad.runtime.transport import LocalTransport, Transport
from telegrad.spec import build
from telegrad.theory.known_problems import problem_of, theory_rate
from telegrad.workloads.base import Split, Task, Workload
from telegrad.workloads.imported import workload_of

__all__ = ["Result", "train"]

_PATIENCE = 10


def train(
    workload: str | Workload | Task, method: str | Method | Compressor, transport: Transport, setting: Setting
) -> Result:
    """Train `workload` under `method` with the workers of `transport`, and account for every bit.

    All ranks, in whatever process they live, end with the same parameters and the same result.
    A step with a non-finite gradient is skipped on all workers, leaves no trace in any state, and is counted.
    Raises `DivergedError` (with `.records`) after ten such steps in a row; `SpecError`, `ConfigError` and `DataError`
    before the first step; `CommunicationError` where a rank is lost.
    """
    steps, workers, batch_size = setting.steps, transport.workers, setting.batch_size
    every = max(1, steps // 20) if setting.evaluate_every is None else setting.evaluate_every
    root, chosen = Key(setting.seed), build(method, "method")
    task = workload if isinstance(workload, Task) else _loaded(workload, setting.data)
    model = task.model(root.fold(role="model"))
    shares = partition(
        task.train.targets, task.classes, workers, setting.dirichlet, batch_size or 1, root.fold(role="partition")
    )

    if isinstance(setting.lr, str):
        setting = replace(setting, lr=_theory_lr(setting.lr, chosen, task, shares, model, transport))

    @cache
    def whole(rank: int) -> Split:
        return task.train.rows(shares[rank])

    def batch(rank: int, number: int) -> Split:
        key = root.fold(role="data", rank=rank)
        if batch_size is None:
            own = whole(rank)
        else:
            own = task.train.rows(batch_rows(shares[rank], number, batch_size, key, task.train.lengths))
        return Split(task.augment(own.inputs, key.fold(role="augment", step=number)), own.targets)

    examples_a_gradient = sum(len(share) for share in shares) / workers if batch_size is None else batch_size
    parts = Parts(setting, transport, task, model, whole, batch)
    if isinstance(chosen, AsynchronousMethod) and not isinstance(transport, LocalTransport):
        own = asynchronous_parts(chosen, parts)
        return train_asynchronously(chosen, setting, transport, task, model, *own, examples_a_gradient)
    run = run_of(chosen, parts)
    seconds = 0.0
    skipped_in_a_row = 0
    losses: list[float] = []
    records: list[Record] = []

    def ledger_of_all() -> Ledger:
        return Ledger.merged(transport.objects(run.ledger))

    def evaluate(step: int) -> None:
        run.show()
        load_mean_buffers(model, {name: transport.gathered(own) for name, own in run.buffers.items()})
        simulated = None if run.timeline is None else run.timeline.seconds
        told = (step, losses, seconds, run.encode_seconds, simulated)
        records.append(evaluation(task, model, ledger_of_all(), examples_a_gradient, *told))
        losses.clear()

    snapshots, name = setting.snapshots, ""
    found = None
    if snapshots is not None:
        kept = _kept(run, setting, transport)
        name = _name(chosen, setting, transport)
        found = snapshots.load(name)
    if found is None:
        first = 0
        evaluate(0)
    else:
        model.load_state_dict(found["model"])
        kept.load(found["run"])
        first, seconds, skipped_in_a_row = found["step"], found["seconds"], found["skipped_in_a_row"]
        losses, records = found["losses"], found["records"]
    for index in range(first, steps):
        began = time.perf_counter()
        rate = learning_rate(setting.schedule, setting.rate, index, steps, setting.warmup_steps)
        loss = math.nan
        try:
            loss = run.step(index, rate)
        except NonFiniteError as error:
            skipped_in_a_row += 1
            run.ledger.skipped_steps += 1
            if run.ledger.skipped_steps == 1:
                warnings.warn(f"step {index} is skipped on all workers: {error}", TelegradWarning, stacklevel=2)
            if skipped_in_a_row == _PATIENCE:
                raise DivergedError(
                    f"{chosen} with lr={setting.lr}: no finite gradient in the last {_PATIENCE} steps; lower the rate",
                    records,
                ) from None
        else:
            skipped_in_a_row = 0
            losses.append(loss)
        run.ledger.steps += 1
        seconds += time.perf_counter() - began
        if (index + 1) % every == 0 or index + 1 == steps:
            evaluate(index + 1)
        if setting.progress is not None:
            setting.progress({**records[-1], "step": index + 1, "train_loss": loss})
        if snapshots is not None and snapshots.due:
            counts = {"step": index + 1, "seconds": seconds, "skipped_in_a_row": skipped_in_a_row}
            state = {"model": model.state_dict(), "run": kept.save(), "losses": losses, "records": records}
            snapshots.save(name, counts | state)
    run.show()
    final = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    count = max(1, steps)
    return Result(
        records,
        ledger_of_all(),
        final,
        task.metric,
        task.higher_is_better,
        seconds / count,
        run.encode_seconds / count,
    )


def _kept(run: Run, setting: Setting, transport: Transport) -> GradientRun | OracleRun | OuterRun:
    """The run, where its state can be kept. Raises `ConfigError` where it cannot."""
    if isinstance(run, AsynchronousRun) or not isinstance(transport, LocalTransport) or setting.clock is not None:
        raise ConfigError(
            "snapshots are kept where all workers live in one process, and without a clock; leave them out"
        )
    return run


def _name(method: Method, setting: Setting, transport: Transport) -> str:
    """A run in words: whatever its trajectory depends on but the workload."""
    own = {one.name: getattr(setting, one.name) for one in fields(setting)}
    for name in ("data", "clock", "progress", "snapshots"):
        del own[name]
    return ", ".join([str(method), f"workers={transport.workers}", *(f"{name}={own[name]}" for name in own)])


def _theory_lr(
    given: str, method: Method, task: Task, shares: Sequence[Tensor], model: nn.Module, transport: Transport
) -> float:
    """The rate of "theory" or "theory*8", which is printed by the process of rank 0."""
    base = theory_rate(method, problem_of(task, shares), sum(p.numel() for p in model.parameters()))
    factor = float(given.partition("*")[2] or 1)
    if 0 in transport.ranks:
        print(f"lr={base * factor:.6g}: theory's {base:.6g} for {method}, times {factor:g}")
    return base * factor


def _loaded(workload: str | Workload, data: str | Path | None) -> Task:
    return workload_of(workload).load(None if data is None else Path(data), Key())
