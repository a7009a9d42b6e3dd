"""Two phases: every rank serves a share of the entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap

from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.runtime.expectations import shapes_of
from telegrad.runtime.member import Member
from telegrad.runtime.pieces import Piece, joined_shards, shards_of
from telegrad.runtime.topologies.base import Phase, Round, Topology
from telegrad.runtime.topologies.scatter import scattered
from telegrad.spec import register

__all__ = ["TwoPhase"]


@register(
    "two_phase", example="two_phase", source="compressed all-reduce: scatter, reduce, compress again, gather (C3, C16)"
)
@dataclass(frozen=True)
class TwoPhase(Topology):
    """Compressed all-reduce in two phases: every rank serves a shard of the vector.

    Rank i serves the i-th of M shards: all-to-all of the shards' messages, the server's step, all-gather of its
    estimates, compressed once more by the unbiased downlink.

    A worker sends about one message up (in M shards) and M − 1 shards' worth of estimate down: the same number of
    bytes for any number of workers. The second compression adds its ω, once and not M times smaller: for many workers.
    Unless told otherwise the downlink is the method's own compressor, where that is unbiased and does not want the last
    estimate.
    """

    def downlink(self, given: str | Compressor | None, uplink: Compressor | None) -> Compressor:
        fits = given is None and uplink is not None and uplink.unbiased and "last" not in uplink.asks
        return super().downlink(uplink if fits else given, uplink)

    def as_worker(self, piece: Piece, member: Member) -> Sequence[Piece]:
        return shards_of(piece, member.workers)

    def as_server(self, piece: Piece, member: Member) -> Sequence[Piece]:
        return (shards_of(piece, member.workers)[member.rank],)

    def round(self, member: Member, pieces: Sequence[Piece], gradients: Sequence[Tensor]) -> Round:
        count, dtype = member.workers, gradients[0].dtype
        served, inbox = yield from scattered(member, pieces, gradients)
        down = member.serve_down(served, inbox, dtype)
        inbox = yield Phase(
            dict.fromkeys(range(count), down),
            "down",
            {i: shapes_of([shards_of(piece, count)[i] for piece in pieces]) for i in range(count)},
            alike=True,
        )
        # The first failure in the order of ranks, so that all ranks tell the same.
        shards = [[shards_of(piece, count)[i] for piece in pieces] for i in range(count)]
        received = [member.came_down(shards[i], inbox[i], dtype) for i in range(count)]

        def joined(number: int, piece: Piece) -> Tensor:
            own, room = [shards[number] for shards in received], member.workspaces.get(piece.name)
            return member.once(("joined", piece.name), lambda: joined_shards(own, piece, count, room))

        return list(starmap(joined, enumerate(pieces)))
