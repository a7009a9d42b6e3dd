"""Listed places that are so many that they are marked, rather than listed, until they are sent."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.marks import gaps_between
from telegrad.wire.integers import Integers
from telegrad.wire.positions.listed import SPARSE, IndexSet, shorter

__all__ = ["Marked", "marked"]


class Marked(IndexSet):
    """The `IndexSet` of the marked places, `marks`: bool, shape (d,): an eighth of the memory of d indices. Its message
    is the same; the indices are made where one asks for them.
    """

    marks: np.ndarray

    def __init__(self, marks: np.ndarray) -> None:
        for name, value in {"d": len(marks), "marks": marks}.items():
            object.__setattr__(self, name, value)

    @cached_property
    def n(self) -> int:
        return int(np.count_nonzero(self.marks))

    @cached_property
    def index(self) -> Tensor:
        return torch.from_numpy(np.flatnonzero(self.marks))

    @cached_property
    def _form(self) -> tuple[bool, Integers]:
        return shorter(Integers(gaps_between(self.marks)), self.marks.view(np.uint8), self.n)


def marked(marks: np.ndarray) -> IndexSet:
    """The marked places (bool, shape (d,)) in the shorter of two forms."""
    if SPARSE * int(np.count_nonzero(marks)) < len(marks):
        return IndexSet(len(marks), torch.from_numpy(np.flatnonzero(marks)))
    return Marked(marks)
