"""A parameter server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from telegrad.errors import SpecError
from telegrad.runtime.expectations import Expectation, Shapes, shapes_of
from telegrad.runtime.member import Member
from telegrad.runtime.pieces import Piece
from telegrad.runtime.topologies.base import Phase, Relay, Round, Serve, Topology
from telegrad.spec import check_that, register
from telegrad.wire.parcel import Parcel

__all__ = ["Server"]


@register("server", example="server(rank=0)", source="the papers' setting: M workers, one server, uplink and downlink")
@dataclass(frozen=True)
class Server(Topology):
    """A parameter server: one rank takes all workers' messages, and sends its estimate to all.

    Rank `rank` takes all workers' messages, and sends its estimate to all through the downlink's compressor.

    A worker sends one message a round, whatever their number; the serving rank receives M − 1 and sends M − 1.

    Args:
        rank: the serving rank.
    """

    rank: int = 0
    relays = True

    def __post_init__(self) -> None:
        check_that(self.rank >= 0, self, "rank", "a rank from 0 is allowed")

    def check(self, workers: int) -> None:
        if self.rank >= workers:
            raise SpecError(f"{self}: of {workers} workers the ranks are 0 … {workers - 1}; write for example server")

    def as_server(self, piece: Piece, member: Member) -> Sequence[Piece]:
        return (piece,) if member.rank == self.rank else ()

    def round(self, member: Member, pieces: Sequence[Piece], gradients: Sequence[Tensor]) -> Round:
        senders = range(member.workers) if member.rank == self.rank else ()
        mine = member.encode(pieces, gradients)
        inbox = yield Phase({self.rank: mine}, "up", dict.fromkeys(senders, shapes_of(pieces)))
        down = {}
        if member.rank == self.rank:
            down = dict.fromkeys(range(member.workers), member.serve_down(pieces, inbox, gradients[0].dtype))
        inbox = yield Phase(down, "down", {self.rank: shapes_of(pieces)}, alike=True)
        return member.came_down(pieces, inbox[self.rank], gradients[0].dtype)

    def relay(
        self, rank: int, workers: int, mine: Parcel | None, serve: Serve, up: Expectation, down: Shapes | None
    ) -> Relay:
        inbox = yield Phase({} if mine is None else {self.rank: mine}, "up", up if rank == self.rank else {})
        outgoing: dict[int, Parcel] = {}
        if rank == self.rank:
            parcel, receivers = serve(inbox)
            outgoing = dict.fromkeys(receivers, parcel)
        inbox = yield Phase(outgoing, "down", {self.rank: down}, alike=True)
        return inbox.get(self.rank)
