"""Reduce-scatter: every rank keeps the estimate of its own shard."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from torch import Tensor

from telegrad.errors import NonFiniteError
from telegrad.runtime.expectations import shapes_of
from telegrad.runtime.member import Member
from telegrad.runtime.pieces import Piece, shard_of, shards_of
from telegrad.runtime.topologies.base import Inbox, Phase, Round, Topology
from telegrad.wire.parcel import Parcel

__all__ = ["Scatter", "scattered"]


def scattered(
    member: Member, pieces: Sequence[Piece], gradients: Sequence[Tensor]
) -> Generator[Phase, Inbox, tuple[list[Piece], Inbox]]:
    """Send shard i of every piece to rank i; returns this rank's shards and their messages from all ranks.

    Where a gradient is not finite, that is sent to all ranks in place of messages.
    """
    count, up = member.workers, []
    for i in range(count):
        vectors = [shard_of(g, piece, i, count) for piece, g in zip(pieces, gradients, strict=True)]
        up.append(member.encode([shards_of(piece, count)[i] for piece in pieces], vectors))
    failed = next((parcel for parcel in up if parcel.failure), None)
    served = [shards_of(piece, count)[member.rank] for piece in pieces]
    outgoing = {i: failed or parcel for i, parcel in enumerate(up)}
    inbox = yield Phase(outgoing, "up", dict.fromkeys(range(count), shapes_of(served)))
    return served, inbox


@dataclass(frozen=True)
class Scatter(Topology):
    """The first half of `two_phase`, for fully sharded models: each rank's `round` returns its own shards' estimates.

    A second phase, empty but for the lengths, tells all ranks of an estimate that overflows.
    """

    has_downlink = False

    def round(self, member: Member, pieces: Sequence[Piece], gradients: Sequence[Tensor]) -> Round:
        served, inbox = yield from scattered(member, pieces, gradients)
        found = member.serve(served, inbox, gradients[0].dtype)
        told = dict.fromkeys(range(member.workers), Parcel(failure=found)) if isinstance(found, str) else {}
        inbox = yield Phase(told, "down", dict.fromkeys(range(member.workers), None), alike=True)
        for rank in sorted(inbox):
            raise NonFiniteError(inbox[rank].failure)
        assert not isinstance(found, str)
        return found
