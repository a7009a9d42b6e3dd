"""What ranks must agree on: their configuration, and their parameters."""

from __future__ import annotations

import contextlib
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d

from telegrad.errors import ConfigError, DriftError, InputError
from telegrad.kernels.device import away_from_default_device
from telegrad.runtime.transport import Transport
from telegrad.version import __version__
from telegrad.wire.message import VERSION

__all__ = ["check_alike", "check_no_drift", "leave", "own_group"]


def own_group(group: dist.ProcessGroup) -> dist.ProcessGroup:
    """A new group of the same ranks, backend and timeout: exchanges on it keep their order whatever else is sent."""
    if not isinstance(group, dist.ProcessGroup):
        raise InputError(f"process_group={group!r}: what torch.distributed.new_group returns is allowed, or None")
    ranks = dist.get_process_group_ranks(group)
    part = len(ranks) < dist.get_world_size()
    with _named_anew(ranks) if part else contextlib.nullcontext():
        made: dist.ProcessGroup = dist.new_group(
            ranks, timeout=_timeout(group), backend=dist.get_backend(group), use_local_synchronization=part
        )
    if dist.get_backend(made) == "gloo":
        # A rank that leaves at once, since it was given a wrong spec, would break off the connecting of a slower one.
        dist.barrier(group=made)
    return made


_registrations: Counter[tuple[int, ...]] = Counter()


@contextlib.contextmanager
def _named_anew(ranks: list[int]) -> Iterator[None]:
    """A group that only its own ranks make gets a name that no group had before, and the same one on all of them.

    torch takes the ranks and how many groups the process has just now. So a group has the name of one that was
    given back, and its ranks look for each other at the old addresses; and where one rank has yet to give a group back,
    their names differ. Here the registrations of these ranks are counted, in which all of them take part.
    """
    _registrations[tuple(ranks)] += 1
    name = f"telegrad {'_'.join(map(str, ranks))} {_registrations[tuple(ranks)]}"
    before = distributed_c10d._hash_ranks_to_str
    distributed_c10d._hash_ranks_to_str = lambda ranks: name
    try:
        yield
    finally:
        distributed_c10d._hash_ranks_to_str = before


_never_destroyed: list[dist.ProcessGroup] = []


def leave(group: dist.ProcessGroup) -> None:
    """Give a group of `own_group` back; one that went with torch.distributed itself is gone already."""
    if torch.__version__ < "2.8":
        # There the destructor waits for gloo's threads and keeps Python's lock, for which such a thread may wait to let
        # go of a tensor: neither comes to an end (https://github.com/pytorch/pytorch/pull/154976).
        _never_destroyed.append(group)
    with contextlib.suppress(ValueError, RuntimeError, AssertionError):
        dist.destroy_process_group(group)


def _timeout(group: dist.ProcessGroup) -> timedelta | None:
    device = torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")
    options = getattr(group._get_backend(device), "options", None)
    timeout: timedelta | None = getattr(options, "_timeout", None)
    return timeout


def check_alike(transport: Transport, mine: Mapping[str, Any]) -> None:
    """Raise `ConfigError`, on every rank, where a rank's wire version or configuration is another than rank 0's."""
    mine = {"telegrad version": __version__, "wire version": VERSION, **mine}
    configurations = transport.objects(mine)
    first = configurations[0]
    for rank, other in enumerate(configurations):
        for name in dict.fromkeys((*first, *other)):
            if first.get(name) != other.get(name):
                a, b = _difference(first.get(name), other.get(name))
                raise ConfigError(f"ranks do not agree on {name}: rank 0 has {a}, rank {rank} has {b}")


def _difference(one: Any, other: Any) -> tuple[Any, Any]:
    """Where two values differ: in lists, the first entry that does."""
    if isinstance(one, list) and isinstance(other, list):
        missing = "nothing more"
        for i in range(max(len(one), len(other))):
            a, b = (values[i] if i < len(values) else missing for values in (one, other))
            if a != b:
                return a, b
    return one, other


@away_from_default_device
def check_no_drift(transport: Transport, parameters: Mapping[str, Tensor], step: int) -> None:
    """Raise `DriftError`, on every rank, naming the first parameter whose bytes differ from rank 0's."""
    own = torch.tensor([_checksum(p.detach()) for p in parameters.values()], dtype=torch.int64)
    everyone = transport.gathered(own[None])
    for number, name in enumerate(parameters):
        column = everyone[:, number].tolist()
        strays = [rank for rank, value in enumerate(column) if value != column[0]]
        if strays:
            raise DriftError(
                f"before step {step} the parameter {name} of rank {strays[0]} differs from rank 0's: start all "
                "ranks from the same checkpoint, and keep whatever else changes parameters alike on all ranks"
            )


def _checksum(tensor: Tensor) -> int:
    data = tensor.cpu().contiguous().reshape(-1)
    return zlib.crc32(data.view(torch.uint8).numpy().data) if data.numel() else 0
