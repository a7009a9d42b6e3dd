"""One call for whatever wraps a model: DDP, FSDP2, or nothing."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from telegrad.errors import DataError, InputError, TelegradWarning
from telegrad.files import what_it_is, write_atomic
from telegrad.runtime import ddp

__all__ = ["attach", "attach_with", "load_rank", "save_rank"]


def attach(model: nn.Module, spec: Any, **options: Any) -> Any:
    """Let a wrapped model exchange its gradients compressed, whether DDP or FSDP2 wraps it.

    `telegrad.ddp.register` for DistributedDataParallel, `telegrad.fsdp.register` for a model with `fully_shard`ed
    modules.

    Args:
        model: what DDP or `fully_shard` made of your model. Every rank must make the same call.
        spec: a method or a compressor; for FSDP2 an unbiased compressor.
        options: those of `telegrad.ddp.register` or `telegrad.fsdp.register`.

    Returns:
        The handle, with `ledger`, `metrics()`, `state_dict()`; None in a job of one process, which exchanges nothing:
        a warning says so.

    Raises:
        InputError: several processes run, and the model is wrapped in neither.

    Example:
        handle = telegrad.attach(DistributedDataParallel(model), "auto(bits=1)")
    """
    return attach_with(model, spec, options, {})


def attach_with(model: nn.Module, spec: Any, options: dict[str, Any], for_ddp: dict[str, Any]) -> Any:
    """`attach`, with options that only DDP's `register` knows, where it is DDP and they were not given."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        warnings.warn(
            f"{spec}: this job has one process, which exchanges no gradients; nothing is compressed. "
            "Start several, for example: torchrun --nproc-per-node=2 script.py",
            TelegradWarning,
            stacklevel=3,
        )
        return None
    if isinstance(model, DistributedDataParallel):
        return ddp.register(model, spec, **{**for_ddp, **options})
    from torch.distributed.fsdp import FSDPModule

    from telegrad.runtime import fsdp

    if any(isinstance(module, FSDPModule) for module in model.modules()):
        return fsdp.register(model, spec, **options)
    raise InputError(
        f"a {type(model).__name__} that is wrapped neither in DistributedDataParallel nor by fully_shard exchanges no "
        "gradients; wrap it first, for example telegrad.attach(DistributedDataParallel(model), …)"
    )


def _file(folder: str | Path, rank: int) -> Path:
    return Path(folder) / f"telegrad-rank{rank}.pt"


def save_rank(handle: Any, folder: str | Path) -> None:
    """Write this rank's part of the handle's state into the folder of a checkpoint; every rank calls it."""
    buffer = io.BytesIO()
    torch.save(handle.state_dict(), buffer)
    write_atomic(_file(folder, dist.get_rank()), buffer.getvalue())


def load_rank(handle: Any, folder: str | Path) -> bool:
    """Go on from what `save_rank` wrote. Returns whether the folder has a state; where it has none, the handle stays
    new, with a warning. Raises `DataError` for a file that is damaged.
    """
    path = _file(folder, dist.get_rank())
    if not path.exists():
        path = _file(folder, 0)  # more ranks than were saved: the state of another says so, in the handle's words
    if not path.exists():
        warnings.warn(
            f"{folder} holds no state of telegrad: the exchange starts anew, error memory included",
            TelegradWarning,
            stacklevel=2,
        )
        return False
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:  # pickle and zip raise kinds of their own
        raise DataError(
            f"cannot read {path}: {what_it_is(path, error)}; take another checkpoint, or delete what telegrad has in "
            "this one on all ranks, and the exchange starts anew"
        ) from error
    handle.load_state_dict(state)
    return True
