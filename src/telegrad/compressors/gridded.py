"""What deterministic quantisers share: integer symbols, one step."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from telegrad.compressors.base import Contractive, Encoded
from telegrad.compressors.coding import symbols_term
from telegrad.random import Key
from telegrad.spec import check_that
from telegrad.wire.values.base import round_scalar

__all__ = ["Gridded"]


class Gridded(Contractive):
    """C(x) = step · symbols of `level` bits, no randomness: biased, its variance the error itself."""

    level: int

    random = False

    def __post_init__(self) -> None:
        check_that(1 <= self.level <= 30, self, "level", "a number of bits from 1 to 30 is allowed")

    @abstractmethod
    def symbols(self, v: Tensor) -> tuple[Tensor, float]:
        """(the symbols, integers on the CPU, the step)."""

    def _carried(self, step: float, v: Tensor) -> float:
        """The step as the message carries it."""
        return round_scalar(step, v.dtype, None)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        symbol, step = self.symbols(v)
        return Encoded((symbols_term(symbol, self._carried(step, v)),))

    def _variance(self, v: Tensor) -> float:
        symbol, step = self.symbols(v)
        return float((v.double().cpu() - symbol.double() * step).square().sum())
