"""Transports: what carries parcels between ranks, in one process or over torch.distributed."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from telegrad.errors import CommunicationError, TelegradError, WireError
from telegrad.kernels.device import away_from_default_device
from telegrad.kernels.threads import each
from telegrad.runtime.expectations import Expected
from telegrad.runtime.words import Words
from telegrad.wire.parcel import ELEMENTS_A_BYTE, Parcel, pack_parcel

__all__ = ["LENGTH_NBYTES", "Delivery", "GroupTransport", "LocalTransport", "Transport"]

Outgoing = Mapping[int, Parcel]
Delivery = Callable[[], list[dict[int, Parcel]]]
"""Waits for what was sent; returns, for each rank of this process, by sender what it receives."""

LENGTH_NBYTES = 16
"""Bytes by which a rank tells each other one, in every phase, how long its parcel will be (0 for none), and a hash of
what it was sent in the step before.
"""


class Transport(ABC):
    """Carries what the ranks of this process send to all ranks.

    Attributes: `workers`, the number of ranks; `ranks`, those that live in this process.
    """

    workers: int
    ranks: Sequence[int]
    foreign: ClassVar[bool] = False
    """Whether parcels come as bytes from elsewhere."""

    @abstractmethod
    def send(self, outgoing: Sequence[Outgoing], expected: Sequence[Expected]) -> Delivery:
        """Send on their way, for each rank of this process, by receiver what it sends.

        All ranks take part in every call, be it with nothing to send, and in the same order. `expected`: for each rank
        of this process, what the others may send it. Raises, here or while waiting,
        `CommunicationError` where a rank is lost, and on all ranks alike `WireError` where one sent what does not fit,
        naming it and the reason, and `DriftError` where one told ranks different things in the step before.
        """

    @abstractmethod
    def begin(self) -> None:
        """Enter a step."""

    @abstractmethod
    def gathered(self, tensors: Tensor) -> Tensor:
        """A row from every rank, shape (M, …), of a row for each rank of this process, shape (len(ranks), …)."""

    @abstractmethod
    def told(self, tensors: Tensor) -> Tensor:
        """`gathered`, of a few numbers by which ranks decide how to go on. Raises `DriftError`, on all ranks, where one
        did not tell all others the same.
        """

    @abstractmethod
    def objects(self, mine: Any) -> list[Any]:
        """What the processes hold, a small picklable object each, in the order of their ranks."""


class LocalTransport(Transport):
    """All ranks in this process: parcels change hands unpacked. What they would weigh is the same."""

    def __init__(self, workers: int) -> None:
        self.workers, self.ranks = workers, range(workers)

    def begin(self) -> None:
        pass

    def send(self, outgoing: Sequence[Outgoing], expected: Sequence[Expected]) -> Delivery:
        inboxes = [
            {sender: parcels[rank] for sender, parcels in enumerate(outgoing) if rank in parcels} for rank in self.ranks
        ]
        return lambda: inboxes

    def gathered(self, tensors: Tensor) -> Tensor:
        return tensors

    def told(self, tensors: Tensor) -> Tensor:
        return tensors

    def objects(self, mine: Any) -> list[Any]:
        return [mine]


class GroupTransport(Transport):
    """A rank a process, over a process group: each phase is an all-to-all of lengths and one of bytes; the bytes travel
    while the ranks do something else.

    Works on gloo and NCCL: both have the uneven all-to-all. Bytes travel from `device`, which NCCL wants to be a GPU.
    """

    foreign = True

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.workers, self.ranks = dist.get_world_size(group), [dist.get_rank(group)]
        self.device = torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")
        self._words = Words(group, self.device)

    def begin(self) -> None:
        self._words.begin()

    @away_from_default_device
    def send(self, outgoing: Sequence[Outgoing], expected: Sequence[Expected]) -> Delivery:
        (parcels,), (wanted,), (me,) = outgoing, expected, self.ranks
        packed = {parcel: pack_parcel(parcel) for parcel in dict.fromkeys(parcels.values())}  # one often goes to many
        # What a rank sends itself is decoded as by all others, so that it shares no memory with gradients.
        own = packed[parcels[me]] if me in parcels else b""
        data = [packed[parcels[i]] if i in parcels and i != me else b"" for i in range(self.workers)]
        try:
            lengths = self._words.exchange([len(one) for one in data])
            # Whatever is announced, no more room is made than what may come needs.
            most = [wanted.longest(sender) for sender in range(self.workers)]
            sizes = [length if 0 <= length <= room else room for length, room in zip(lengths, most, strict=True)]
            wait = self._all_to_all(data, sizes)
        except RuntimeError as error:
            raise _named(error) from error

        @away_from_default_device
        def inbox() -> list[dict[int, Parcel]]:
            received = [own if sender == me else data for sender, data in enumerate(wait())]

            def read(sender: int) -> Parcel | WireError | None:
                try:
                    if lengths[sender] != sizes[sender]:
                        raise WireError(f"{lengths[sender]} bytes announced, where up to {most[sender]} are allowed")
                    return wanted.read(sender, received[sender])
                except WireError as error:
                    return error

            found = each(read, range(self.workers), ELEMENTS_A_BYTE * sum(map(len, received)))
            for sender, parcel in enumerate(found):
                if isinstance(parcel, WireError):
                    self._words.tell(sender, f"rank {sender} sent what does not fit: {parcel}")
            self._words.check()
            if wanted.alike:
                self._words.note(received)
            return [{sender: parcel for sender, parcel in enumerate(found) if isinstance(parcel, Parcel)}]

        return inbox

    def _all_to_all(self, data: Sequence[bytes], sizes: Sequence[int]) -> Callable[[], list[memoryview]]:
        lengths = [len(one) for one in data]
        sent = torch.frombuffer(bytearray().join(data) or bytearray(1), dtype=torch.uint8)[: sum(lengths)]
        sent, got = sent.to(self.device), torch.empty(sum(sizes), dtype=torch.uint8, device=self.device)
        work = dist.all_to_all_single(got, sent, list(sizes), lengths, group=self.group, async_op=True)

        def received() -> list[memoryview]:
            try:
                work.wait()
                view = got.cpu().numpy().data
            except RuntimeError as error:
                raise lost(error) from error
            ends = list(itertools.accumulate(sizes))
            return [view[end - size : end] for end, size in zip(ends, sizes, strict=True)]

        return received

    @away_from_default_device
    def gathered(self, tensors: Tensor) -> Tensor:
        rows = [torch.empty_like(tensors[0], device=self.device) for _ in range(self.workers)]
        try:
            self._words.hear()
            dist.all_gather(rows, tensors[0].contiguous().to(self.device), group=self.group)
        except RuntimeError as error:
            raise _named(error) from error
        return torch.stack(rows).to(tensors.device)

    @away_from_default_device
    def told(self, tensors: Tensor) -> Tensor:
        try:
            return self._words.told(tensors[0].contiguous())
        except RuntimeError as error:
            raise _named(error) from error

    @away_from_default_device
    def objects(self, mine: Any) -> list[Any]:
        found: list[Any] = [None] * self.workers
        try:
            self._words.hear()
            dist.all_gather_object(found, mine, group=self.group)
        except RuntimeError as error:
            raise _named(error) from error
        return found


def _named(error: RuntimeError) -> TelegradError:
    return error if isinstance(error, TelegradError) else lost(error)


def lost(error: Exception) -> CommunicationError:
    """The error for a collective that did not come about."""
    reason = str(error).strip().splitlines()[0]
    return CommunicationError(
        f"the exchange with the other ranks failed: a worker is lost or the network is down ({reason}); "
        "under torchrun with --max-restarts training goes on from the last checkpoint"
    )
