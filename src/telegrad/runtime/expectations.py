"""What a rank expects of the others in a phase, so that a parcel that does not fit is refused before it changes
anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from telegrad.errors import WireError
from telegrad.wire.code import Code
from telegrad.wire.parcel import Parcel, unpack_parcel
from telegrad.wire.positions import Ranked

__all__ = ["Expected"]

_FRAME = 1 << 16
_BYTES_AN_ENTRY = 64
_LONGEST = 1 << 40


@dataclass(frozen=True)
class Expected:
    """By sender, the number of entries of each of its messages; all for tensors of `dtype`.

    `ordered`: whether they may count on the last estimate's order. `alike`: whether all ranks are sent the same.
    """

    numels: Mapping[int, Sequence[int]]
    dtype: torch.dtype
    ordered: bool = False
    alike: bool = False

    def longest(self, sender: int) -> int:
        """More bytes than its parcel can reasonably have: eight times what float64 numbers take."""
        own = self.numels.get(sender, ())
        return min(_LONGEST, _FRAME * (1 + len(own)) + _BYTES_AN_ENTRY * sum(own))

    def read(self, sender: int, data: bytes | memoryview) -> Parcel | None:
        """The parcel in these bytes, None for none. Raises `WireError` where it is not what is expected."""
        wanted = self.numels.get(sender)
        if wanted is None or not len(data):
            if wanted is None and not len(data):
                return None
            raise WireError(f"{len(data)} bytes where {'none are' if wanted is None else 'a parcel is'} expected")
        parcel = unpack_parcel(data, wanted)
        for code in parcel.codes:
            self._check(code)
        return parcel

    def _check(self, code: Code) -> None:
        if code.dtype != self.dtype:
            raise WireError(f"a message for {code.dtype} where {self.dtype} is expected")
        for term in code.terms:
            inner = getattr(term.values, "positions", None)
            for positions, ordered in ((term.positions, self.ordered), (inner, False)):
                if isinstance(positions, Ranked) and positions.shared and not ordered:
                    raise WireError("a message counts on the last estimate's order, which is not used here")
