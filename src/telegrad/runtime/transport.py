"""Transports: what carries parcels between ranks, in one process, or see group_transport.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from telegrad.runtime.expectations import Expected
from telegrad.wire.parcel import Parcel

__all__ = ["LENGTH_NBYTES", "Delivery", "LocalTransport", "Outgoing", "Transport"]

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
