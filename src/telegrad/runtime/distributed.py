"""The simulator's training with a worker a process, under torchrun."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from telegrad.errors import ConfigError
from telegrad.kernels.device import away_from_default_device
from telegrad.methods.base import Method
from telegrad.runtime.group_transport import GroupTransport
from telegrad.runtime.setting import Setting
from telegrad.runtime.training import Result, train
from telegrad.workloads.base import Task, Workload

__all__ = ["train_distributed"]


@away_from_default_device
def train_distributed(
    workload: str | Workload | Task, method: str | Method, *, group: dist.ProcessGroup | None = None, **setting: Any
) -> Result:
    """`simulate` with this process as one of the workers, the ranks of `group`; every rank must make the same call.

    Each rank computes its own worker's gradient as a lone process does, so parameters, records and ledger are those of
    `simulate(..., gradients="loop")`, bit for bit on CPUs of one kind. All ranks return the same result, times apart.
    Of an asynchronous method (`async_sgd`, `rennala`), whose `steps` are arrivals, the messages are the same, and come
    in the order of the workers' own speed. Raises `ConfigError` without an initialised process group.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise ConfigError(
            "no process group: start with `torchrun --nproc-per-node=4 …` and call torch.distributed.init_process_group"
        )
    return train(workload, method, GroupTransport(group), Setting.of({**setting, "gradients": "loop"}))
