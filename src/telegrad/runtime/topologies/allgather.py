"""All-gather: every rank receives every message and is its own server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from telegrad.runtime.expectations import Expectation, Shapes, shapes_of
from telegrad.runtime.member import Member
from telegrad.runtime.pieces import Piece
from telegrad.runtime.topologies.base import Phase, Relay, Round, Serve, Topology
from telegrad.spec import register
from telegrad.wire.parcel import Parcel

__all__ = ["AllGather"]


@register("allgather", example="allgather", source="the exchange of PyTorch's own all-gather based hooks")
@dataclass(frozen=True)
class AllGather(Topology):
    """All-gather: every worker's message goes to all others, and each decodes all of them into one buffer.

    One phase, and nothing is compressed twice; but a worker sends and receives M − 1 messages: for few workers.
    """

    relays = True
    has_downlink = False

    def round(self, member: Member, pieces: Sequence[Piece], gradients: Sequence[Tensor]) -> Round:
        mine = member.encode(pieces, gradients)
        everyone = range(member.workers)
        expected = dict.fromkeys(everyone, shapes_of(pieces))
        inbox = yield Phase(dict.fromkeys(everyone, mine), "both", expected, alike=True)
        return member.serve_alike("allgather", pieces, inbox, gradients[0].dtype)

    def relay(
        self, rank: int, workers: int, mine: Parcel | None, serve: Serve, up: Expectation, down: Shapes | None
    ) -> Relay:
        outgoing = {} if mine is None else dict.fromkeys(range(workers), mine)
        inbox = yield Phase(outgoing, "both", up, alike=True)
        parcel, receivers = serve(inbox)
        return parcel if rank in receivers else None
