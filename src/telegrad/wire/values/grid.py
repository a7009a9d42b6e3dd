"""Integer multiples of one scale."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.quantising.rounding import times_steps
from telegrad.kernels.quantising.signs import signs_apart
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import kept
from telegrad.random import Key
from telegrad.wire.bits import Reader
from telegrad.wire.integers import Integers
from telegrad.wire.values.base import (
    Buffer,
    Sizes,
    Values,
    pack_scalar,
    read_scalar,
    round_scalar,
    scalar_nbytes,
)

__all__ = ["Grid"]


@dataclass(frozen=True)
class Grid(Values):
    """scale · symbol with non-zero integer symbols: a sign bit each, then magnitudes where one exceeds 1.

    Zeros are left out by the positions (`Positions.keep`).
    """

    tag: ClassVar[int] = 2
    symbol: Tensor = field(repr=False)
    scale: float
    top: int = field(default=0, compare=False, repr=False)
    """The largest magnitude of a symbol, where it is known already; else 0."""

    @property
    def n(self) -> int:
        return self.symbol.numel()

    def numbers(self) -> Tensor:
        return self._times_scale(torch.float64)

    def numbers_as(self, dtype: torch.dtype) -> Tensor:
        return self._times_scale(torch.float64 if dtype == torch.float64 else torch.float32).to(dtype)

    def _times_scale(self, dtype: torch.dtype) -> Tensor:
        return times_steps(self.symbol, torch.tensor([self.scale], dtype=torch.float64), max(1, self.n), dtype)

    def largest(self) -> float:
        return (self.top or 1 + self._parts[1].largest) * abs(self.scale) if self.symbol.numel() else 0.0

    def scaled(self, factor: float) -> Grid:
        return Grid(self.symbol, self.scale * factor, self.top)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Grid:
        return Grid(self.symbol, round_scalar(self.scale, dtype, key), self.top)

    @kept
    def _parts(self) -> tuple[bytes, Integers]:
        """The signs, packed, and the magnitudes beyond one."""
        signs, beyond_one = signs_apart(plain(self.symbol))
        return signs.tobytes(), Integers(beyond_one)

    def sizes(self, dtype: torch.dtype) -> Sizes:
        signs, beyond_one = self._parts
        return {"scale": scalar_nbytes(dtype), "sign": len(signs), "value": beyond_one.nbytes}

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        signs, beyond_one = self._parts
        return [pack_scalar(self.scale, dtype), signs, beyond_one.write()]

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Grid:
        """The inverse of `write`."""
        scale = read_scalar(reader, dtype)
        reader.book("scale")
        negative = reader.bits(n)
        reader.book("sign")
        beyond_one = Integers.read_narrow(reader, n)
        top = 1 + int(beyond_one.max(initial=0))
        narrow: Any = np.int8 if top < 128 else np.int64
        symbol = (1 - 2 * negative.astype(narrow)) * (beyond_one.astype(narrow) + 1)
        return cls(torch.from_numpy(symbol), scale, top)
