"""Two levels: uncompressed within a node, compressed between nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from telegrad.errors import NonFiniteError
from telegrad.runtime.expectations import shapes_of
from telegrad.runtime.member import Member
from telegrad.runtime.pieces import Piece
from telegrad.runtime.topologies.base import Inbox, Phase, Round, Topology
from telegrad.spec import check_that, register
from telegrad.wire.parcel import Parcel

__all__ = ["Hierarchical"]


@register(
    "hierarchical", example="hierarchical(node=2)", source="fast links within a machine, slow ones between machines"
)
@dataclass(frozen=True)
class Hierarchical(Topology):
    """A hierarchy of two levels: gradients are added up within a node, and messages travel between nodes.

    Ranks 0 … node−1 are a node, the next `node` ranks another. The first rank of each adds its node's gradients up
    in the order of ranks, is the method's worker for them, and exchanges messages with the other first ranks as in
    `allgather`; then it hands the estimate to its node. The last node may be smaller: its gradients weigh as much.

    Args:
        node: ranks of a node.
    """

    node: int
    has_downlink = False

    def __post_init__(self) -> None:
        check_that(self.node >= 1, self, "node", "a number of ranks from 1 is allowed")

    def method_workers(self, workers: int) -> int:
        return -(-workers // self.node)

    def method_worker(self, rank: int) -> int:
        return rank // self.node

    def as_worker(self, piece: Piece, member: Member) -> Sequence[Piece]:
        return (piece,) if member.rank % self.node == 0 else ()

    def as_server(self, piece: Piece, member: Member) -> Sequence[Piece]:
        return self.as_worker(piece, member)

    def round(self, member: Member, pieces: Sequence[Piece], gradients: Sequence[Tensor]) -> Round:
        first, dtype = member.rank - member.rank % self.node, gradients[0].dtype
        heads = range(0, member.workers, self.node)
        node, home_again = range(first, min(first + self.node, member.workers)), {first: shapes_of(pieces)}
        own = dict.fromkeys(node if member.rank == first else (), shapes_of(pieces))
        inbox = yield Phase({first: member.uncompressed(gradients, pieces)}, "inside", own)
        if member.rank != first:
            yield Phase({}, "both", {})
            inbox = yield Phase({}, "inside", home_again)
            return member.received(pieces[0].name, inbox[first])
        mine = self._node_message(member, pieces, inbox, len(heads))
        inbox = yield Phase(dict.fromkeys(heads, mine), "both", dict.fromkeys(heads, shapes_of(pieces)))
        try:
            estimates = member.serve_alike("hierarchical", pieces, inbox, dtype)
            home = member.uncompressed(estimates, pieces)
        except NonFiniteError as error:
            home = Parcel(failure=str(error))
        inbox = yield Phase(dict.fromkeys(node, home), "inside", home_again)
        return member.received(pieces[0].name, inbox[first])

    def _node_message(self, member: Member, pieces: Sequence[Piece], inbox: Inbox, nodes: int) -> Parcel:
        """The compressed sum of a node's gradients, weighed so that the mean over nodes is the mean over workers."""
        failed = next((inbox[rank] for rank in sorted(inbox) if inbox[rank].failure), None)
        if failed is not None:
            return failed
        sums = []
        for number in range(len(pieces)):
            parts = [inbox[rank].codes[number].decode() for rank in sorted(inbox)]
            wide = parts[0].double()
            for part in parts[1:]:
                wide += part
            sums.append((wide * (nodes / member.workers)).to(parts[0].dtype))
        return member.encode(pieces, sums, worker=self.method_worker(member.rank))
