"""Transports: what carries parcels between ranks, in one process or over torch.distributed."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from telegrad.errors import CommunicationError
from telegrad.wire.parcel import Parcel, pack_parcel, unpack_each

__all__ = ["LENGTH_NBYTES", "Delivery", "GroupTransport", "LocalTransport", "Transport"]

Outgoing = Mapping[int, Parcel]
Delivery = Callable[[], list[dict[int, Parcel]]]
"""Waits for what was sent; returns, for each rank of this process, by sender what it receives."""

LENGTH_NBYTES = 8
"""Bytes by which a rank tells each other one, in every phase, how long its parcel will be (0 for none)."""


class Transport(ABC):
    """Carries what the ranks of this process send to all ranks.

    Attributes: `workers`, the number of ranks; `ranks`, those that live in this process.
    """

    workers: int
    ranks: Sequence[int]

    @abstractmethod
    def send(self, outgoing: Sequence[Outgoing]) -> Delivery:
        """Send on their way, for each rank of this process, by receiver what it sends.

        All ranks take part in every call, be it with nothing to send, and in the same order. Raises
        `CommunicationError` where a rank is lost, here or while waiting.
        """

    @abstractmethod
    def gathered(self, tensors: Tensor) -> Tensor:
        """A row from every rank, shape (M, …), of a row for each rank of this process, shape (len(ranks), …)."""

    @abstractmethod
    def objects(self, mine: Any) -> list[Any]:
        """What the processes hold, a small picklable object each, in the order of their ranks."""


class LocalTransport(Transport):
    """All ranks in this process: parcels change hands unpacked. What they would weigh is the same."""

    def __init__(self, workers: int) -> None:
        self.workers, self.ranks = workers, range(workers)

    def send(self, outgoing: Sequence[Outgoing]) -> Delivery:
        inboxes = [
            {sender: parcels[rank] for sender, parcels in enumerate(outgoing) if rank in parcels} for rank in self.ranks
        ]
        return lambda: inboxes

    def gathered(self, tensors: Tensor) -> Tensor:
        return tensors

    def objects(self, mine: Any) -> list[Any]:
        return [mine]


class GroupTransport(Transport):
    """A rank a process, over a process group: each phase is an all-to-all of lengths and one of bytes; the bytes travel
    while the ranks do something else.

    Works on gloo and NCCL: both have the uneven all-to-all. Bytes travel from `device`, which NCCL wants to be a GPU.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.workers, self.ranks = dist.get_world_size(group), [dist.get_rank(group)]
        self.device = torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")

    def send(self, outgoing: Sequence[Outgoing]) -> Delivery:
        (parcels,), (me,) = outgoing, self.ranks
        packed = {parcel: pack_parcel(parcel) for parcel in dict.fromkeys(parcels.values())}  # one often goes to many
        # What a rank sends itself is decoded as by all others, so that it shares no memory with gradients.
        own = packed[parcels[me]] if me in parcels else b""
        wait = self._all_to_all([packed[parcels[i]] if i in parcels and i != me else b"" for i in range(self.workers)])

        def inbox() -> list[dict[int, Parcel]]:
            received = [own if sender == me else data for sender, data in enumerate(wait())]
            senders = [sender for sender, data in enumerate(received) if len(data)]
            return [dict(zip(senders, unpack_each([received[sender] for sender in senders]), strict=True))]

        return inbox

    def _all_to_all(self, data: Sequence[bytes]) -> Callable[[], list[memoryview]]:
        lengths = [len(one) for one in data]
        try:
            theirs = torch.zeros(self.workers, dtype=torch.int64, device=self.device)
            dist.all_to_all_single(theirs, torch.tensor(lengths, device=self.device), group=self.group)
            sizes = theirs.tolist()
            sent = torch.frombuffer(bytearray(b"".join(data) or b"\0"), dtype=torch.uint8)[: sum(lengths)]
            sent, got = sent.to(self.device), torch.empty(sum(sizes), dtype=torch.uint8, device=self.device)
            work = dist.all_to_all_single(got, sent, sizes, lengths, group=self.group, async_op=True)
        except RuntimeError as error:
            raise lost(error) from error

        def received() -> list[memoryview]:
            try:
                work.wait()
                view = got.cpu().numpy().data
            except RuntimeError as error:
                raise lost(error) from error
            ends = list(itertools.accumulate(sizes))
            return [view[end - size : end] for end, size in zip(ends, sizes, strict=True)]

        return received

    def gathered(self, tensors: Tensor) -> Tensor:
        rows = [torch.empty_like(tensors[0], device=self.device) for _ in range(self.workers)]
        try:
            dist.all_gather(rows, tensors[0].contiguous().to(self.device), group=self.group)
        except RuntimeError as error:
            raise lost(error) from error
        return torch.stack(rows).to(tensors.device)

    def objects(self, mine: Any) -> list[Any]:
        found: list[Any] = [None] * self.workers
        try:
            dist.all_gather_object(found, mine, group=self.group)
        except RuntimeError as error:
            raise lost(error) from error
        return found


def lost(error: Exception) -> CommunicationError:
    """The error for a collective that did not come about."""
    reason = str(error).strip().splitlines()[0]
    return CommunicationError(
        f"the exchange with the other ranks failed: a worker is lost or the network is down ({reason}); "
        "under torchrun with --max-restarts training goes on from the last checkpoint"
    )
