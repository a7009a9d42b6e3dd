"""What joins the ranks of a group, measured by the collective that carries messages: latency and bandwidth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from telegrad.runtime.group_transport import GroupTransport, lost
from telegrad.runtime.ledger import Ledger

__all__ = ["Link", "gathered_numbers", "measured_link"]

_ROUNDS = 5
_SMALLEST, _LARGEST, _GROWTH = 1 << 16, 1 << 24, 2  # bytes that a rank sends in a probe
_LONG = 0.02  # seconds: what takes longer is timed well enough


@dataclass(frozen=True)
class Link:
    """`bandwidth`: bits per second that a rank hands to all others, while it takes as much from them; `latency`:
    seconds of an all-to-all of almost nothing. Those of the slowest rank.
    """

    bandwidth: float
    latency: float


def measured_link(transport: GroupTransport, ledger: Ledger) -> Link:
    """The link between the ranks, the same on all of them; every rank must call this.

    All-to-alls grow from 64 KiB a rank by factors of 2 until one takes 20 ms, or 16 MiB: over slow links little is
    sent. The last size is sent once more: a link may let the first bytes pass faster, as token buckets do. What is
    sent is booked in the account's `probes`. Raises `CommunicationError` where a rank is lost.
    """
    others = transport.workers - 1
    if not others:
        return Link(float("inf"), 0.0)
    _probe(transport, ledger, 1)  # opens connections
    latency = statistics.median(_probe(transport, ledger, 1) for _ in range(_ROUNDS))
    nbytes = _SMALLEST
    while _slowest(transport, ledger, _probe(transport, ledger, nbytes)) < _LONG and nbytes < _LARGEST:
        nbytes *= _GROWTH
    seconds = _probe(transport, ledger, nbytes)
    each = nbytes // others
    bandwidth = 8 * each * others / max(seconds - latency, 1e-9)
    rows = gathered_numbers(transport, ledger, [latency, 1 / bandwidth])
    latency, inverse = rows.amax(0).tolist()
    return Link(1 / inverse, latency)


def gathered_numbers(transport: GroupTransport, ledger: Ledger, mine: Sequence[float]) -> Tensor:
    """The ranks' numbers, a row of float64 for each rank, the same on all ranks; booked as probes."""
    own = torch.tensor(list(mine), dtype=torch.float64)
    _book(transport, ledger, own.numel() * own.element_size())
    return transport.gathered(own[None])


def _slowest(transport: GroupTransport, ledger: Ledger, seconds: float) -> float:
    return float(gathered_numbers(transport, ledger, [seconds]).max())


def _probe(transport: GroupTransport, ledger: Ledger, nbytes: int) -> float:
    """Seconds of an all-to-all in which a rank sends about `nbytes`, in equal parts, to the others."""
    each, (me,) = max(1, nbytes // (transport.workers - 1)), transport.ranks
    sizes = [0 if rank == me else each for rank in range(transport.workers)]
    sent = torch.zeros(sum(sizes), dtype=torch.uint8, device=transport.device)
    got = torch.empty_like(sent)
    _book(transport, ledger, each)
    _wait_for(transport.device)
    began = time.perf_counter()
    try:
        dist.all_to_all_single(got, sent, sizes, sizes, group=transport.group)
        _wait_for(transport.device)
    except RuntimeError as error:
        raise lost(error) from error
    return time.perf_counter() - began


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _book(transport: GroupTransport, ledger: Ledger, nbytes: int) -> None:
    """Book `nbytes` to and from each other rank."""
    (me,), bits = transport.ranks, 8 * nbytes * (transport.workers - 1)
    ledger.probes[me] += bits
    ledger.sent[me] += bits
    ledger.received[me] += bits
