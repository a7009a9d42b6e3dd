"""What a rank's worker and server remember, as a checkpoint holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from telegrad.kernels.device import away_from_default_device
from telegrad.runtime.exchange import Exchange
from telegrad.runtime.pieces import Part, Piece

__all__ = ["load_memory", "memory_of"]


@away_from_default_device
def memory_of(exchange: Exchange, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
    """The memory of this process's rank by parameter, in the logical order of its entries, also before the first step:
    what torch.distributed.checkpoint loads must be listed.
    """
    (member,), topology = exchange.members, exchange.topology
    for name, parameter in parameters.items():
        piece = Piece(name, (Part(name, 0, parameter.numel()),))
        member.remember(topology.as_worker(piece, member), topology.as_server(piece, member), parameter.dtype)
    return member.save()


@away_from_default_device
def load_memory(exchange: Exchange, memory: Mapping[str, Any]) -> None:
    """Go on from what `memory_of` gave; from the beginning for an empty one."""
    (member,) = exchange.members
    member.load(memory)
