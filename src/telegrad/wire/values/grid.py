"""Integer multiples of one scale."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.quantising.narrowing import narrowed_number
from telegrad.kernels.quantising.rounding import times_steps
from telegrad.kernels.quantising.signs import signs_apart
from telegrad.kernels.threads import ONE_CHUNK, kept
from telegrad.random import Key
from telegrad.wire.bits import SCALARS, Buffer, Reader
from telegrad.wire.integers import ZEROS, Integers
from telegrad.wire.values.base import Sizes, Values, scalar_dtype

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
        if self.symbol.numel() < ONE_CHUNK:
            return self.symbol.double().mul_(self.scale).to(dtype)
        return times_steps(self.symbol, torch.tensor([self.scale], dtype=torch.float64), max(1, self.n), dtype)

    def largest(self) -> float:
        return (self.top or self._largest) * abs(self.scale) if self.symbol.numel() else 0.0

    def scaled(self, factor: float) -> Grid:
        return Grid(self.symbol, self.scale * factor, self.top)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Grid:
        return Grid(self.symbol, narrowed_number(self.scale, scalar_dtype(dtype), key), self.top)

    @kept
    def _apart(self) -> tuple[np.ndarray, Integers]:
        """The signs, packed, and the magnitudes beyond one."""
        signs, beyond_one = signs_apart(self.symbol.numpy())
        return signs, Integers(beyond_one)

    @property
    def _largest(self) -> int:
        return 1 + self._apart[1].largest

    def sizes(self, dtype: torch.dtype) -> Sizes:
        beyond_one = 1 if self.top == 1 else self._apart[1].nbytes
        return {"scale": SCALARS[dtype].size, "sign": (self.n + 7) // 8, "value": beyond_one}

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        scale = SCALARS[dtype].pack(self.scale)
        if self.top == 1:
            return [scale, np.packbits(self.symbol.numpy() < 0).data, ZEROS]
        signs, beyond_one = self._apart
        return [scale, signs.data, beyond_one.write()]

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Grid:
        """The inverse of `write`."""
        scale = reader.scalar(dtype)
        reader.book("scale")
        negative = reader.bits(n)
        reader.book("sign")
        form = reader.byte()
        if form == ZEROS[0]:
            return cls(torch.from_numpy(1 - 2 * negative.view(np.int8)), scale, 1)
        beyond_one = Integers.read_narrow(reader, n, form)
        top = 1 + int(beyond_one.max(initial=0))
        narrow: Any = np.int8 if top < 128 else np.int64
        symbol = (1 - 2 * negative.astype(narrow)) * (beyond_one.astype(narrow) + 1)
        return cls(torch.from_numpy(symbol), scale, top)
