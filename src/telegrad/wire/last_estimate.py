"""The estimate of the step before: what all ranks know of a piece without a bit being sent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from telegrad.kernels.reference import descending_order

__all__ = ["LastEstimate"]


@dataclass(frozen=True, eq=False)
class LastEstimate:
    """The last estimate of a piece, `vector`: flat, shape (d,), alike on all ranks; zero before the first step.

    The compressor (or method) that wants it takes it in `after`, and so does the `Code` that it sends, to be decoded.
    """

    vector: Tensor

    @cached_property
    def order(self) -> Tensor:
        """The entries by decreasing magnitude, int64, shape (d,); ties by index. Sorted once."""
        return descending_order(self.vector)
