"""What deterministic roundings to a uniform grid share."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.random import Key
from telegrad.spec import check_that
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import Grid

__all__ = ["GridPoints"]


@dataclass(frozen=True)
class GridPoints(Compressor):
    """C(x) = step · symbol, an entry a point of a uniform grid of `level` bits; sent are those that are not 0."""

    level: int

    unbiased = False
    random = False

    def __post_init__(self) -> None:
        check_that(1 <= self.level <= 30, self, "level", "a number of bits from 1 to 30 is allowed")

    @abstractmethod
    def _points(self, v: Tensor) -> tuple[Tensor, float]:
        """(symbol, step): int64 of shape (d,), and the grid's step before it is rounded to what a message holds."""

    def _sent(self, v: Tensor, symbol: Tensor, step: float) -> Grid:
        """The non-zero symbols as a message for a tensor like v carries them."""
        return Grid(symbol, step).rounded(v.dtype, None)

    def omega(self, d: int) -> float:
        return math.inf

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        symbol, step = self._points(v)
        which = symbol.nonzero().squeeze(1)
        positions = All(len(v)) if len(which) == len(v) else All(len(v)).keep(which)
        return Encoded((Term(positions, self._sent(v, symbol[which], step)),))

    def _variance(self, v: Tensor) -> float:
        symbol, step = self._points(v)
        return float((v.double() - symbol.double() * step).square().sum())
