"""Integer multiples of scales that buckets of neighbouring entries share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.coding.symbols import folded, unfolded
from telegrad.kernels.memory import add_in_pieces, adds_in_pieces
from telegrad.kernels.quantising.narrowing import narrowed
from telegrad.kernels.quantising.rounding import times_steps, write_times
from telegrad.kernels.threads import kept
from telegrad.random import Key
from telegrad.wire.bits import SCALARS, Buffer, Reader, pack_varint, varint_nbytes
from telegrad.wire.integers import Integers
from telegrad.wire.values.base import Sizes, Values, largest_of, scalar_dtype

__all__ = ["Bucketed"]

_PIECE = 65408  # entries that the cache holds


@dataclass(frozen=True)
class Bucketed(Values):
    """scale[j // bucket] · symbol[j]: integer symbols, zeros among them, and one scale for every `bucket` entries.

    Sign and magnitude travel as one integer (0, −1, 1, −2, … as 0, 1, 2, 3, …): the entropy coder then sees zeros,
    too.
    """

    tag: ClassVar[int] = 5
    symbol: Tensor = field(repr=False)
    scale: Tensor = field(repr=False)
    bucket: int

    @property
    def n(self) -> int:
        return len(self.symbol)

    def numbers(self) -> Tensor:
        return times_steps(self.symbol, self.scale, min(self.bucket, max(1, self.n)), torch.float64)

    def numbers_as(self, dtype: torch.dtype) -> Tensor:
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return times_steps(self.symbol, self.scale, min(self.bucket, max(1, self.n)), wide).to(dtype)

    def add_to(self, out: Tensor, weight: float) -> None:
        if not adds_in_pieces(out):
            there = replace(self, symbol=self.symbol.to(out.device))
            out.add_(there.numbers_as(out.dtype), alpha=weight)
            return
        symbol, scale, single = self.symbol.cpu().numpy(), self.scale.cpu().numpy(), len(self.scale) == 1
        bucket = _PIECE if single else self.bucket

        def make(low: int, high: int, room: np.ndarray) -> None:
            write_times(symbol[low:high], scale if single else scale[low // bucket :], bucket, room)

        add_in_pieces(out, weight, self.n, max(_PIECE // bucket, 1) * bucket, make)

    def largest(self) -> float:
        return largest_of(self.symbol) * largest_of(self.scale)

    def scaled(self, factor: float) -> Bucketed:
        return replace(self, scale=self.scale * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Bucketed:
        return replace(self, scale=narrowed(self.scale, scalar_dtype(dtype), key).double())

    @kept
    def _folded(self) -> Integers:
        symbol = self.symbol.cpu().numpy()
        return Integers(symbol if symbol.dtype in (np.int8, np.int16) else folded(symbol))

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {
            "header": varint_nbytes(self.bucket),
            "scale": len(self.scale) * SCALARS[dtype].size,
            "value": self._folded.nbytes,
        }

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        scale = self.scale.to(scalar_dtype(dtype)).cpu().numpy().tobytes()
        return [pack_varint(self.bucket), scale, self._folded.write()]

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Bucketed:
        """The inverse of `write`."""
        bucket = reader.varint()
        reader.book("header")
        if bucket < 1:
            raise WireError("the message announces buckets without entries")
        count = -(-n // bucket)
        raw = bytearray(reader.take(count * SCALARS[dtype].size))
        reader.book("scale")
        wide = torch.frombuffer(raw, dtype=scalar_dtype(dtype)) if count else torch.zeros(0)
        return cls(torch.from_numpy(unfolded(Integers.read_narrow(reader, n))), wide.double(), bucket)
