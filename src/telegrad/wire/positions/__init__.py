"""Where the entries of a message lie in the flat vector: everywhere, at listed indices, on a subset or share drawn from
a seed, or at ranks of an order that all ranks know.
"""

from __future__ import annotations

from telegrad.errors import WireError
from telegrad.wire.bits import Reader
from telegrad.wire.positions.base import Positions
from telegrad.wire.positions.drawn import Nested, Share, Subset
from telegrad.wire.positions.everywhere import All
from telegrad.wire.positions.listed import IndexSet, marked
from telegrad.wire.positions.ranked import Ranked, last_order

__all__ = [
    "All",
    "IndexSet",
    "Nested",
    "Positions",
    "Ranked",
    "Share",
    "Subset",
    "last_order",
    "marked",
    "read_positions",
]


_KINDS: dict[int, type[Positions]] = {cls.tag: cls for cls in (All, IndexSet, Subset, Nested, Share, Ranked)}


def read_positions(tag: int, reader: Reader, d: int) -> Positions:
    """Read the positions of kind `tag` for a vector of d entries."""
    if tag not in _KINDS:
        raise WireError(f"unknown kind of positions {tag} in the message")
    return _KINDS[tag].read(reader, d)
