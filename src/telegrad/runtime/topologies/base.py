"""The contract of a topology: how a round's messages travel between ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import SpecError
from telegrad.runtime.expectations import Expectation, Shapes
from telegrad.runtime.member import Member
from telegrad.runtime.pieces import Piece
from telegrad.runtime.topologies.watched import watched
from telegrad.spec import Registered, build, wrap_own
from telegrad.wire.parcel import Parcel

__all__ = ["Account", "Inbox", "Phase", "Relay", "Round", "Serve", "Topology"]

Account = Literal["up", "down", "both", "inside"]
Inbox = Mapping[int, Parcel]


@dataclass(frozen=True)
class Phase:
    """What one rank sends to which ranks, all ranks at once; `account`: as what it is booked.

    up: every parcel once, as its sender's uplink. down: as its receivers' downlink. both: both. inside: traffic within
    a node, not the method's. `expected`: by sender, the shapes of what its messages stand for (`shapes_of`); None where
    only word of a failure may come, or nothing. `alike`: whether all ranks are sent the same.
    """

    outgoing: Mapping[int, Parcel]
    account: Account
    expected: Expectation
    alike: bool = False


Round = Generator[Phase, Inbox, list[Tensor]]
Serve = Callable[[Inbox], tuple[Parcel, Sequence[int]]]
"""What the server makes of the parcels by sender: what it sends, and to which ranks."""
Relay = Generator[Phase, Inbox, "Parcel | None"]


class Topology(Registered, ABC):
    """Which rank serves which part of a piece, and how the estimate comes back to all.

    `round` is one rank's program: it yields what it sends and is handed what it received. Simulator and
    torch.distributed run the same programs, so they compute the same numbers; all ranks yield equally often.
    """

    kind: ClassVar[str] = "topology"
    relays: ClassVar[bool] = False
    """Whether it carries messages over the whole model, as methods with an oracle send them."""
    has_downlink: ClassVar[bool] = True
    """Whether the estimate is sent as a message of its own, which a compressor may shorten."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        wrap_own(cls, {"round": partial(watched, phase=Phase, account=Account)})

    @abstractmethod
    def round(self, member: Member, pieces: Sequence[Piece], gradients: Sequence[Tensor]) -> Round:
        """Exchange the flat `gradients` of `pieces`; returns the estimates of their means over all workers, alike on
        all ranks. Raises `NonFiniteError`, on all ranks alike, where a gradient or an estimate is not finite.
        """

    def relay(
        self, rank: int, workers: int, mine: Parcel | None, serve: Serve, up: Expectation, down: Shapes | None
    ) -> Relay:
        """One rank's program for messages over the whole model: `mine` goes to whoever serves, and what `serve` makes
        of what came in comes back; None where nothing was for this rank. `up`, `down`: the shapes of what every worker
        sends and of what comes back to this rank.
        """
        raise SpecError(f"{self} serves shares of gradients only: write topology=server or topology=allgather")

    def as_worker(self, piece: Piece, member: Member) -> Sequence[Piece]:
        """Into which pieces the member's worker cuts `piece`."""
        return (piece,)

    def as_server(self, piece: Piece, member: Member) -> Sequence[Piece]:
        """Which pieces of `piece` the member serves."""
        return (piece,)

    def method_workers(self, workers: int) -> int:
        """How many workers the method has: the senders of messages."""
        return workers

    def method_worker(self, rank: int) -> int:
        """Which of the method's workers a rank belongs to."""
        return rank

    def check(self, workers: int) -> None:
        """Raise `SpecError` where the topology does not fit that many workers."""

    def downlink(self, given: str | Compressor | None, uplink: Compressor | None) -> Compressor:
        """The compressor of what comes back: the one given, which must be unbiased, or the topology's usual one.

        `uplink`: the method's own compressor, where it has one.
        """
        if given is None:
            return build("identity", "compressor")
        chosen: Compressor = build(given, "compressor")
        if not self.has_downlink and str(chosen) != "identity":
            raise SpecError(f"{self} sends no estimates, so downlink={chosen} has nothing to compress; leave it out")
        if not chosen.unbiased:
            raise SpecError(
                f"downlink={chosen} is biased, and the server has no error memory; write for example downlink=identity"
            )
        return chosen
