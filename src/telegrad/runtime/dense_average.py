"""The mean of a bucket as DDP takes it, by an all-reduce, or with its entries in bfloat16: booked like messages."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from telegrad.errors import CommunicationError
from telegrad.random import Key
from telegrad.runtime.bfloat16_average import average_in_bfloat16, sent_bits
from telegrad.runtime.comm_hook import Load
from telegrad.runtime.group_transport import GroupTransport, lost
from telegrad.runtime.ledger import Ledger

__all__ = ["average_dense", "average_halved"]


def average_dense(load: Load, transport: GroupTransport, ledger: Ledger, at_once: bool) -> None:
    """DDP's own exchange. `at_once`: it has the load's future already, which is fulfilled before this returns."""
    work = dist.all_reduce(load.buffer.div_(transport.workers), group=transport.group, async_op=True)
    if at_once:
        try:
            work.wait()
        except RuntimeError as error:
            raise lost(error) from error
        load.future.set_result(load.buffer)
    else:
        load.future = work.get_future().then(_first_of)
    bits = 8 * load.buffer.numel() * load.buffer.element_size()
    around = 2 * bits * (transport.workers - 1) // transport.workers
    _book(ledger, transport, load.buffer.numel(), bits, around)


def average_halved(load: Load, transport: GroupTransport, ledger: Ledger, key: Key) -> None:
    """The mean with entries in bfloat16, stochastically rounded; it is there when this returns."""
    average_in_bfloat16(load.buffer, transport, key)
    load.future.set_result(load.buffer)
    entries = load.buffer.numel()
    _book(ledger, transport, entries, 16 * entries, sent_bits(entries, transport.workers))


def _first_of(future: torch.futures.Future[Any]) -> Tensor:
    try:
        found: Tensor = future.value()[0]
    except RuntimeError as error:
        raise CommunicationError(str(lost(error))) from error
    return found


def _book(ledger: Ledger, transport: GroupTransport, entries: int, bits: int, around: int) -> None:
    """Book the all-reduce of a bucket of `bits`; a rank sends, and receives, `around` for it."""
    (me,) = transport.ranks
    ledger.up[me]["value"] += bits
    ledger.down[me]["value"] += bits
    ledger.by_piece.setdefault("all-reduce", type(ledger.up[me])())["value"] += bits
    ledger.paper_up[me] += 64 * entries
    ledger.messages_up += 1
    ledger.sent[me] += around
    ledger.received[me] += around
