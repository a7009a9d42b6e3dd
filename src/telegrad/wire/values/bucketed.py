"""Integer multiples of scales that buckets of neighbouring entries share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.coding.symbols import folded, unfolded
from telegrad.kernels.quantising.narrowing import narrowed
from telegrad.kernels.quantising.rounding import times_steps
from telegrad.kernels.threads import in_chunks, kept
from telegrad.random import Key
from telegrad.wire.bits import SCALARS, Buffer, Reader, pack_varint, varint_nbytes
from telegrad.wire.integers import Integers
from telegrad.wire.values.base import Sizes, Values, largest_of, scalar_dtype

__all__ = ["Bucketed"]

_PIECE = 32704  # entries: a little fewer than torch shares out over threads of its own


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
        # In pieces of whole buckets that the cache holds: fresh memory for all numbers costs more than making them.
        bucket = self.bucket if len(self.scale) > 1 else 1
        size = _PIECE // bucket * bucket

        def work(_: int, start: int, stop: int) -> None:
            for low in range(start, stop, size):
                high = min(stop, low + size)
                scale = self.scale[low // bucket : -(-high // bucket)] if len(self.scale) > 1 else self.scale
                part = replace(self, symbol=self.symbol[low:high], scale=scale)
                total = torch.from_numpy(out.detach().numpy()[low:high])  # which any thread may change
                total.add_(part.numbers_as(out.dtype), alpha=weight)

        # Sums of 16 bits are rounded otherwise by torch at the ends of what it is given.
        if size and not out.is_cuda and out.dtype in (torch.float32, torch.float64):
            in_chunks(work, self.n, size)
        else:
            there = replace(self, symbol=self.symbol.to(out.device))
            out.add_(there.numbers_as(out.dtype), alpha=weight)

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
