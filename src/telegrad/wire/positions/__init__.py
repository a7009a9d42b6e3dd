"""Where the entries of a message lie in the flat vector: everywhere, at listed indices, on a subset or share drawn from
a seed, or at ranks of an order that all ranks know.
"""

from __future__ import annotations

from telegrad.wire.kinds import Kinds
from telegrad.wire.positions.base import Positions
from telegrad.wire.positions.drawn import Nested, Share, Subset
from telegrad.wire.positions.everywhere import All
from telegrad.wire.positions.listed import IndexSet, marked
from telegrad.wire.positions.ranked import Ranked, last_order

__all__ = [
    "POSITIONS",
    "All",
    "IndexSet",
    "Nested",
    "Positions",
    "Ranked",
    "Share",
    "Subset",
    "last_order",
    "marked",
]


POSITIONS: Kinds[type[Positions]] = Kinds("positions", (All, IndexSet, Subset, Nested, Share, Ranked))
"""The kinds of positions by the tag that they have in a message."""
