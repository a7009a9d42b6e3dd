"""The run of a method, whatever its kind: what a step needs, put together from the parts that all kinds share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from telegrad.errors import ConfigError, SpecError, TelegradWarning
from telegrad.methods.asynchronous_method import AsynchronousMethod
from telegrad.methods.base import Method
from telegrad.methods.clock import Clock
from telegrad.methods.oracle_method import OracleMethod, OracleStep
from telegrad.methods.outer_method import OuterMethod
from telegrad.random import Key
from telegrad.runtime.asynchronous_run import AsynchronousRun
from telegrad.runtime.exchange import Exchange, exchange_of
from telegrad.runtime.flat import FlatModel, OptimizerStep
from telegrad.runtime.gradient_run import GradientRun
from telegrad.runtime.gradients import LoopGradients, VectorisedGradients
from telegrad.runtime.oracle import TaskOracle
from telegrad.runtime.oracle_run import OracleRun
from telegrad.runtime.outer_run import OuterRun
from telegrad.runtime.pieces import pieces_of
from telegrad.runtime.setting import Setting
from telegrad.runtime.shapes import warn_of_lost_shapes
from telegrad.runtime.together import Together
from telegrad.runtime.topologies.server import Server
from telegrad.runtime.transport import LocalTransport, Transport
from telegrad.spec import build
from telegrad.workloads.base import Split, Task

__all__ = ["Parts", "Run", "asynchronous_parts", "run_of"]

Run = GradientRun | OracleRun | OuterRun | AsynchronousRun


@dataclass(frozen=True)
class Parts:
    """What a run of any method is made of. `whole`: a rank's own data; `batch`: that of a rank in a step."""

    setting: Setting
    transport: Transport
    task: Task
    model: nn.Module
    whole: Callable[[int], Split]
    batch: Callable[[int, int], Split]

    @property
    def root(self) -> Key:
        return Key(self.setting.seed)

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer that the setting asks for. Raises `ConfigError` where there is none such."""
        setting = self.setting
        choice, lr = setting.optimizer, setting.rate
        if callable(choice):
            made = choice(parameters, lr)
            if not isinstance(made, torch.optim.Optimizer):
                raise ConfigError(
                    f"optimizer={choice!r} returned {made!r}; a torch optimizer is wanted, for example "
                    "lambda parameters, lr: torch.optim.Adam(parameters, lr)"
                )
            return made
        if choice == "sgd":
            return torch.optim.SGD(parameters, lr=lr, momentum=setting.momentum, weight_decay=setting.weight_decay)
        if choice == "adamw":
            if setting.momentum:
                raise ConfigError(f"momentum={setting.momentum} goes with optimizer=sgd; adamw has its own averages")
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=setting.weight_decay)
        raise ConfigError(f"optimizer={choice!r}: sgd, adamw, or a function of (parameters, lr) is allowed")

    def oracles(self) -> tuple[FlatModel, dict[int, TaskOracle], Callable[[], OptimizerStep]]:
        """The flat model, the oracles of this process's ranks, and what makes the run's optimizer."""
        parameters = dict(self.model.named_parameters())
        flat = FlatModel(parameters, pieces_of(parameters, self.setting.granularity))

        def oracle(rank: int) -> TaskOracle:
            whole, batch = self.whole(rank), partial(self.batch, rank)
            return TaskOracle(rank, self.task, self.model, flat, batch, whole, self.setting.batch_size)

        return flat, {rank: oracle(rank) for rank in self.transport.ranks}, lambda: OptimizerStep(flat, self.optimizer)


def run_of(method: Method, parts: Parts) -> Run:
    """The run of the method. Raises `SpecError` and `ConfigError` for what it does not go with."""
    clock = parts.setting.clock
    if isinstance(method, AsynchronousMethod):
        return AsynchronousRun(method, *asynchronous_parts(method, parts))
    by_clock = isinstance(method, OracleMethod) and method.needs_clock
    if clock is not None and not isinstance(parts.transport, LocalTransport) and not by_clock:
        raise ConfigError("a clock is simulated: leave it out where workers are processes, or use telegrad.simulate")
    if isinstance(method, OracleMethod):
        return _oracle_run(method, parts)
    if isinstance(method, OuterMethod):
        return _outer_run(method, parts)
    return _gradient_run(method, parts)


def _oracle_run(method: OracleMethod, parts: Parts) -> OracleRun:
    setting, (flat, oracles, make) = parts.setting, parts.oracles()
    if method.moves_by_itself:
        _warn_of_unused(method, setting)
    vectorises = setting.gradients == "vmap" and len(oracles) > 1 and not list(parts.model.buffers())
    compute = VectorisedGradients(parts.task, parts.model, setting.chunk) if vectorises else None
    return OracleRun(
        method,
        build(setting.topology, "topology"),
        setting.downlink,
        parts.transport,
        parts.root,
        flat,
        oracles,
        make,
        setting.clock,
        None if compute is None else Together(oracles, compute, flat),
    )


def _warn_of_unused(method: OracleMethod, setting: Setting) -> None:
    """Say which arguments about the optimizer such a method leaves aside."""
    plain = Setting()
    given = [
        name for name in ("optimizer", "momentum", "weight_decay") if getattr(setting, name) != getattr(plain, name)
    ]
    if given:
        named = ", ".join(f"{name}={getattr(setting, name)!r}" for name in given)
        warnings.warn(
            f"{method} makes steps of its own, of which only lr counts: {named} is not used; leave it out",
            TelegradWarning,
            stacklevel=2,
        )


def _outer_run(method: OuterMethod, parts: Parts) -> OuterRun:
    setting = parts.setting
    return OuterRun(
        method,
        _exchange(method.exchanged, parts),
        parts.model,
        setting.granularity,
        LoopGradients(parts.task, parts.model),  # every worker is at a point of its own
        parts.optimizer,
        parts.batch,
        setting.clock,
    )


def _gradient_run(method: Method, parts: Parts) -> GradientRun:
    setting, model = parts.setting, parts.model
    parameters = dict(model.named_parameters())
    loops = setting.gradients == "loop"
    compute = LoopGradients(parts.task, model) if loops else VectorisedGradients(parts.task, model, setting.chunk)
    exchange, pieces = _exchange(method, parts), pieces_of(parameters, setting.granularity)
    warn_of_lost_shapes(exchange, pieces, parameters)
    optimizer = parts.optimizer(list(model.parameters()))
    return GradientRun(exchange, model, pieces, compute, optimizer, parts.batch, setting.clock)


def _exchange(method: Method, parts: Parts) -> Exchange:
    setting = parts.setting
    return exchange_of(method, build(setting.topology, "topology"), setting.downlink, parts.transport, parts.root)


def asynchronous_parts(
    method: AsynchronousMethod, parts: Parts
) -> tuple[OracleStep, FlatModel, dict[int, TaskOracle], Callable[[], OptimizerStep], Clock | None]:
    """What a run of an asynchronous method is made of. Raises `SpecError` for what it does not go with."""
    setting = parts.setting
    topology = build(setting.topology, "topology")
    if not isinstance(topology, Server):
        raise SpecError(f"{method} runs over topology=server, not over {topology}")
    if setting.downlink is not None:
        raise SpecError(f"{method} sends its iterates down as they are, so leave out downlink={setting.downlink}")
    flat, oracles, make = parts.oracles()
    workers, dtype = parts.transport.workers, flat.vector().dtype
    first = OracleStep(0, 0.0, parts.root, workers=workers, pieces=flat.pieces, clock=setting.clock, dtype=dtype)
    return first, flat, oracles, make, setting.clock
