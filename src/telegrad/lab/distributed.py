"""Experiments whose workers are processes: rank 0 keeps the records, the others follow it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist

from telegrad.errors import ConfigError, TelegradError
from telegrad.random import Key
from telegrad.runtime.distributed import train_distributed
from telegrad.runtime.training import Result
from telegrad.workloads import workload_of

__all__ = ["end_process", "group_of_processes", "leading"]


@contextmanager
def group_of_processes() -> Iterator[tuple[int, int]]:
    """(rank, number of ranks) in torchrun's processes, joined over gloo. Raises `ConfigError` outside of torchrun."""
    if not dist.is_torchelastic_launched():
        raise ConfigError(
            "--distributed makes every process a worker: write "
            "torchrun --nproc-per-node=4 -m telegrad compare --distributed …"
        )
    dist.init_process_group("gloo")
    try:
        yield dist.get_rank(), dist.get_world_size()
        dist.barrier()  # nobody leaves while another still talks to it
    finally:
        dist.destroy_process_group()


def end_process() -> None:
    """End this process with status 0, at once and after all that was written.

    Threads of gloo that are still there when Python takes itself down could abort a process that has done its work
    ("terminate called without an active exception").
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextmanager
def leading(workload: str, data: str | None) -> Iterator[Callable[..., Result] | None]:
    """On rank 0 a function in place of `simulate`, which makes all ranks train; on the others None, after following
    rank 0 to its end.
    """
    task = workload_of(workload).load(None if data is None else Path(data), Key())
    if dist.get_rank():
        while (told := _told(None)) is not None:
            method, setting = told
            with suppress(TelegradError):  # rank 0 meets the same error, and reports it
                train_distributed(task, method, **setting)
        yield None
        return

    def train(_: Any, method: str, *, workers: int, progress: Any = None, **setting: Any) -> Result:
        _told((method, setting))
        return train_distributed(task, method, progress=progress, **setting)

    try:
        yield train
    finally:
        _told(None)


def _told(what: Any) -> Any:
    """What rank 0 tells all others."""
    told = [what]
    dist.broadcast_object_list(told, src=0)
    return told[0]
