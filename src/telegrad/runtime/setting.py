"""How a run trains: the arguments of `simulate`, checked."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError
from telegrad.methods.clock import Clock
from telegrad.runtime.misspelt import refuse_unknown
from telegrad.runtime.pieces import Granularity
from telegrad.runtime.schedule import Schedule
from telegrad.runtime.snapshots import Snapshots
from telegrad.runtime.topologies import Topology

__all__ = ["OptimizerChoice", "Record", "Setting"]

Record = dict[str, float | int]
OptimizerChoice = Literal["sgd", "adamw"] | Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]


@dataclass(frozen=True)
class Setting:
    """How a run trains, whoever the workers are.

    Every step, each worker computes the gradient of its own batch of `batch_size` examples (None: all of its examples)
    and sends what the method makes of it, along `topology`; the estimate is the gradient of the torch optimizer:
    `optimizer` "sgd" with `momentum`, "adamw", or a function of parameters and lr. What a server sends back goes
    through the unbiased compressor `downlink` (None: the topology's usual one).
    `seed` decides first parameters, the split over workers (`dirichlet`: heterogeneous, see `partition`), batches and
    every draw of the compressors; torch's global generator is neither used nor changed. The split into train,
    validation and test is the same for all seeds. `gradients`: "vmap" computes all workers at once, in chunks of
    `chunk`; "loop" each one as a lone process would; they differ in the last bits of gradients, never in a draw.
    `lr`: a number, or "theory", the step size that theory gives the method on a workload with known constants, or a
    multiple of it, "theory*8"; the rate taken is printed. `granularity`: what one compressor call sees.
    `evaluate_every`: steps between evaluations, a twentieth of all by default. `data`: the folder of the workload's
    data. `clock`: how long simulated work takes; records then have `simulated_seconds`. `progress` is called after
    every step with the last evaluation's record, the current `step` and its `train_loss`. `snapshots`: where the state
    is kept while it trains, and found again after an interruption; only where all workers live in this process, and
    without a clock.
    """

    steps: int = 300
    batch_size: int | None = 16
    lr: float | str = 0.1
    optimizer: OptimizerChoice = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    seed: int = 0
    dirichlet: float | None = None
    topology: str | Topology = "server"
    granularity: Granularity = "model"
    downlink: str | Compressor | None = None
    gradients: Literal["vmap", "loop"] = "vmap"
    chunk: int | None = None
    evaluate_every: int | None = None
    data: str | Path | None = None
    clock: Clock | None = None
    progress: Callable[[Record], None] | None = None
    snapshots: Snapshots | None = None

    def __post_init__(self) -> None:
        if isinstance(self.lr, str) and not _THEORY.fullmatch(self.lr):
            raise ConfigError(f'lr={self.lr!r}: a number, "theory", or a multiple such as "theory*8" is allowed')
        for name, (lowest, more) in _NUMBERS.items():
            value = getattr(self, name)
            if name == "lr" and isinstance(value, str):
                continue
            if value is None and more:
                continue
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise ConfigError(f"{name}={value!r}: a finite number is wanted{more}")
            if value < lowest:
                raise ConfigError(f"{name}={value}: a number from {lowest} is allowed{more}")
            if float(value) > _LARGEST.get(name, math.inf):
                raise ConfigError(f"{name}={value}: a number up to {_LARGEST[name]:g} is allowed")
        if self.momentum >= 1:
            raise ConfigError(f"momentum={self.momentum}: a number below 1 is allowed, for example momentum=0.9")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, numbers.Integral):
                raise ConfigError(f"{name}={value!r}: an integer is wanted, for example {name}={round(value) or 1}")
        for name, allowed in _WORDS.items():
            if getattr(self, name) not in allowed and not (name == "optimizer" and callable(self.optimizer)):
                words = ", ".join(map(repr, allowed)) + (", or a function of (parameters, lr)" * (name == "optimizer"))
                raise ConfigError(f"{name}={getattr(self, name)!r}: {words} is allowed")
        for name, (kind, instead) in _OBJECTS.items():
            if getattr(self, name) is not None and not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name}={getattr(self, name)!r}: {instead} is allowed, or None")

    @property
    def rate(self) -> float:
        """The learning rate as a number: known once "theory" has met the workload."""
        return float(self.lr)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Setting:
        """The setting of arguments by name. Raises `ConfigError` for a name that there is not, with the nearest."""
        known = [field.name for field in dataclasses.fields(cls)]
        refuse_unknown([name for name in given if name not in known], [*known, "workers"], _ELSEWHERE)
        return cls(**given)


_THEORY = re.compile(r"theory(\*[0-9.]+(e[+-]?[0-9]+)?)?")
_NUMBERS: dict[str, tuple[float, str]] = {
    **dict.fromkeys(("steps", "warmup_steps", "weight_decay", "momentum", "lr"), (0, "")),
    "seed": (-math.inf, ""),
    "batch_size": (1, ", or None for all examples"),
    "evaluate_every": (1, ", or None for a twentieth of all steps"),
    "chunk": (1, ", or None for all workers at once"),
    "dirichlet": (0, ", or None for equal shares"),
}
_COUNTS = ("steps", "warmup_steps", "seed", "batch_size", "evaluate_every", "chunk")
_ELSEWHERE = {
    "learning_rate": "write lr",
    "epochs": "write steps",
    **dict.fromkeys(("model", "dataset", "loss"), "write telegrad.simulate(telegrad.task(model, data), method)"),
}
_LARGEST = dict.fromkeys(("lr", "weight_decay"), 1e30)
"""Beyond, a float32 parameter cannot be moved."""
_OBJECTS: dict[str, tuple[Any, str]] = {
    "data": ((str, Path), 'a folder, for example data="data",'),
    "clock": (Clock, "a telegrad.methods.Clock(gradient=…, message=…)"),
    "progress": (Callable, "a function of a record"),
    "snapshots": (Snapshots, "a telegrad.runtime.snapshots.Snapshots"),
}
_WORDS: dict[str, tuple[str, ...]] = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("constant", "linear", "cosine"),
    "granularity": ("model", "bucket", "tensor"),
    "gradients": ("vmap", "loop"),
}
