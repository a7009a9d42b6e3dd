"""Integer multiples of scales that buckets of neighbouring entries share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.reference import round_to_dtype
from telegrad.random import Key
from telegrad.wire.bits import Reader, pack_varint, varint_nbytes
from telegrad.wire.integers import Integers
from telegrad.wire.values.base import Sizes, Values, largest_of, scalar_dtype, scalar_nbytes

__all__ = ["Bucketed"]


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
        return self.symbol.double() * self.scale.repeat_interleave(min(self.bucket, self.n))[: self.n]

    def largest(self) -> float:
        return largest_of(self.symbol) * largest_of(self.scale)

    def scaled(self, factor: float) -> Bucketed:
        return replace(self, scale=self.scale * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Bucketed:
        uniforms = key.uniform(len(self.scale), device=self.scale.device) if key else None
        return replace(self, scale=round_to_dtype(self.scale, scalar_dtype(dtype), uniforms).double())

    @cached_property
    def _folded(self) -> Integers:
        symbol = self.symbol.cpu().numpy().astype(np.int64)
        return Integers(np.where(symbol < 0, -2 * symbol - 1, 2 * symbol))

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {
            "header": varint_nbytes(self.bucket),
            "scale": len(self.scale) * scalar_nbytes(dtype),
            "value": self._folded.nbytes,
        }

    def write(self, dtype: torch.dtype) -> bytes:
        scale = self.scale.to(scalar_dtype(dtype)).cpu().numpy().tobytes()
        return pack_varint(self.bucket) + scale + self._folded.write()

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Bucketed:
        """The inverse of `write`."""
        bucket = reader.varint()
        if bucket < 1:
            raise WireError("the message announces buckets without entries")
        count = -(-n // bucket)
        raw = bytearray(reader.take(count * scalar_nbytes(dtype)))
        wide = torch.frombuffer(raw, dtype=scalar_dtype(dtype)) if count else torch.zeros(0)
        folded = Integers.read(reader, n)
        return cls(torch.from_numpy((folded >> 1) ^ -(folded & 1)), wide.double(), bucket)
