"""A parameter server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from telegrad.errors import SpecError
from telegrad.runtime.member import Member
from telegrad.runtime.pieces import Piece
from telegrad.runtime.topologies.base import Phase, Round, Topology
from telegrad.spec import check_that, register

__all__ = ["Server"]


@register("server", example="server(rank=0)", source="the papers' setting: M workers, one server, uplink and downlink")
@dataclass(frozen=True)
class Server(Topology):
    """Rank `rank` takes all workers' messages, and sends its estimate to all through the downlink's compressor.

    A worker sends one message a round, whatever their number; the serving rank receives M − 1 and sends M − 1.
    """

    rank: int = 0

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
        inbox = yield Phase({self.rank: mine}, "up", dict.fromkeys(senders, pieces))
        down = {}
        if member.rank == self.rank:
            down = dict.fromkeys(range(member.workers), member.serve_down(pieces, inbox, gradients[0].dtype))
        inbox = yield Phase(down, "down", {self.rank: pieces}, alike=True)
        return member.received(pieces[0].name, inbox[self.rank])
