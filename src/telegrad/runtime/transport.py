"""Transports: what carries parcels between ranks, in one process or over torch.distributed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from telegrad.errors import CommunicationError
from telegrad.wire.parcel import Parcel, pack_parcel, unpack_each

__all__ = ["LENGTH_NBYTES", "GroupTransport", "LocalTransport", "Transport"]

LENGTH_NBYTES = 8
"""Bytes by which a rank tells each other one, in every phase, how long its parcel will be (0 for none)."""


class Transport(ABC):
    """Carries what the ranks of this process send to all ranks.

    Attributes: `workers`, the number of ranks; `ranks`, those that live in this process.
    """

    workers: int
    ranks: Sequence[int]

    @abstractmethod
    def deliver(self, outgoing: Sequence[Mapping[int, Parcel]]) -> list[dict[int, Parcel]]:
        """For each rank of this process, by receiver what it sends; in return, by sender what it receives.

        All ranks take part in every call, be it with nothing to send. Raises `CommunicationError` where a rank is lost.
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

    def deliver(self, outgoing: Sequence[Mapping[int, Parcel]]) -> list[dict[int, Parcel]]:
        return [
            {sender: parcels[rank] for sender, parcels in enumerate(outgoing) if rank in parcels} for rank in self.ranks
        ]

    def gathered(self, tensors: Tensor) -> Tensor:
        return tensors

    def objects(self, mine: Any) -> list[Any]:
        return [mine]


class GroupTransport(Transport):
    """A rank a process, over a process group: each phase is an all-to-all of lengths and one of bytes.

    Works on gloo and NCCL: both have the uneven all-to-all. Bytes travel from `device`, which NCCL wants to be a GPU.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.workers, self.ranks = dist.get_world_size(group), [dist.get_rank(group)]
        self.device = torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")

    def deliver(self, outgoing: Sequence[Mapping[int, Parcel]]) -> list[dict[int, Parcel]]:
        (parcels,), (me,) = outgoing, self.ranks
        packed = {parcel: pack_parcel(parcel) for parcel in dict.fromkeys(parcels.values())}  # one often goes to many
        received = self._all_to_all(
            [packed[parcels[i]] if i in parcels and i != me else b"" for i in range(self.workers)]
        )
        inbox = {sender: data for sender, data in enumerate(received) if len(data)}
        if me in parcels:  # decoded as by all others, so that it shares no memory with gradients
            inbox[me] = memoryview(packed[parcels[me]])
        senders = sorted(inbox)
        return [dict(zip(senders, unpack_each([inbox[sender] for sender in senders]), strict=True))]

    def _all_to_all(self, data: Sequence[bytes]) -> list[memoryview]:
        lengths = [len(one) for one in data]
        try:
            theirs = torch.zeros(self.workers, dtype=torch.int64, device=self.device)
            dist.all_to_all_single(theirs, torch.tensor(lengths, device=self.device), group=self.group)
            sizes = theirs.tolist()
            sent = torch.frombuffer(bytearray(b"".join(data) or b"\0"), dtype=torch.uint8)[: sum(lengths)]
            got = torch.empty(sum(sizes), dtype=torch.uint8, device=self.device)
            dist.all_to_all_single(got, sent.to(self.device), sizes, lengths, group=self.group)
            view = got.cpu().numpy().data
        except RuntimeError as error:
            raise lost(error) from error
        parts, at = [], 0
        for size in sizes:
            parts.append(view[at : at + size])
            at += size
        return parts

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
