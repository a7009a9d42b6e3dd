"""What a rank expects of the others in a phase, so that a parcel that does not fit is refused before it changes
anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter

import torch

from telegrad.errors import WireError
from telegrad.runtime.pieces import Piece
from telegrad.wire.parcel import Parcel, unpack_parcel
from telegrad.wire.positions import Ranked

__all__ = ["Expectation", "Expected", "Shape", "Shapes", "longest", "shapes_of"]

_FRAME = 1 << 16
_BYTES_AN_ENTRY = 64
_LONGEST = 1 << 40

Shape = tuple[int, ...]
"""Of what a message stands for: (n,) for a flat vector, () for a plain number."""
Shapes = tuple[Shape, ...]
Expectation = Mapping[int, Shapes | None]
"""By sender, the shapes of what its messages stand for; None where only word of a failure may come, or nothing."""

_flat_shape = attrgetter("flat_shape")


def shapes_of(pieces: Sequence[Piece]) -> Shapes:
    """Those of messages that stand for the flat vectors of pieces."""
    return tuple(map(_flat_shape, pieces))


@dataclass(frozen=True)
class Expected:
    """What may come in a phase: word of a failure, or messages of these shapes; from other senders nothing.

    `dtype`: the vectors'; plain numbers are float64. `ordered`: whether they may count on the last estimate's order.
    `alike`: whether all ranks are sent the same.
    """

    shapes: Expectation
    dtype: torch.dtype
    ordered: bool = False
    alike: bool = False

    def read(self, sender: int, data: bytes | memoryview) -> Parcel | None:
        """The parcel in these bytes, None for none. Raises `WireError` where it is not what is expected."""
        wanted = self.shapes.get(sender)
        if not len(data):
            if wanted is None:
                return None
            raise WireError("0 bytes where a parcel is expected")
        if sender not in self.shapes:
            raise WireError(f"{len(data)} bytes where none are expected")
        parcel = unpack_parcel(data, list(map(math.prod, wanted or ())))
        if wanted is None and not parcel.failure:
            raise WireError("a parcel without messages where only word of a failure is expected")
        for code, shape in zip(parcel.codes, wanted or (), strict=False):
            if code.shape != shape:
                raise WireError(f"a message for a tensor of shape {code.shape}, where {shape} is expected")
            dtype = self.dtype if shape else torch.float64
            if code.dtype != dtype:
                raise WireError(f"a message for {code.dtype} where {dtype} is expected")
            for term in code.terms:
                inner = getattr(term.values, "positions", None)
                if _counts_on_order(inner) or (not self.ordered and _counts_on_order(term.positions)):
                    raise WireError("a message counts on the last estimate's order, which is not used here")
        return parcel


@lru_cache(maxsize=4096)
def longest(shapes: Shapes | None) -> int:
    """More bytes than a parcel of these shapes can reasonably have: eight times what float64 numbers take."""
    own = shapes or ()
    return min(_LONGEST, _FRAME * (1 + len(own)) + _BYTES_AN_ENTRY * sum(map(math.prod, own)))


def _counts_on_order(positions: object) -> bool:
    return isinstance(positions, Ranked) and positions.shared
