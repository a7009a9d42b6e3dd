"""Floats cut to sign, exponent and a few mantissa bits."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.coding.symbols import fixed_width
from telegrad.kernels.quantising.exponents import joined
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import kept
from telegrad.random import Key
from telegrad.wire.bits import SCALARS, Buffer, Reader, Shared
from telegrad.wire.integers import Integers
from telegrad.wire.values.base import Sizes, Values, round_scalar
from telegrad.wire.values.floats import Floats

__all__ = ["Exponents"]


@dataclass(frozen=True)
class Exponents(Values):
    """sign · 2^(top − below) · (1 + weight · mantissa): floats cut to their first bits, with mantissa integers of
    `mantissa_bits` bits. Signs and mantissas are held as they travel: packed.

    With no mantissa bits these are signed powers of two; with weight 2^−l and l bits, truncated floats; with one bit
    and weight 2^−l / p_l, a level of the floating-point ladder.
    """

    tag: ClassVar[int] = 3
    negative: Tensor = field(repr=False)
    below: Tensor = field(repr=False)
    top: int
    mantissa: Tensor | None = field(default=None, repr=False)
    mantissa_bits: int = 0
    weight: float = 0.0

    @classmethod
    def of(cls, negative: Tensor, exponent: Tensor) -> Exponents:
        """Signed powers of two, from bools and integers."""
        exponents = plain(exponent)
        low, top = (int(exponents.min()), int(exponents.max())) if len(exponents) else (0, 0)
        below = np.empty(len(exponents), dtype=np.uint8 if top - low < 256 else np.uint16)
        np.subtract(top, exponents, out=below, casting="unsafe")
        return cls(torch.from_numpy(fixed_width(plain(negative), 1)), torch.from_numpy(below), top)

    @property
    def n(self) -> int:
        return len(self.below)

    def numbers(self) -> Tensor:
        return self.numbers_as(torch.float64)

    def numbers_as(self, dtype: torch.dtype) -> Tensor:
        packed = self.negative, self.below, self.top, self.mantissa, self.mantissa_bits
        return joined(*packed, self.weight, dtype).to(dtype)

    def largest(self) -> float:
        if not self.n:
            return 0.0
        top = math.ldexp(1.0, min(self.top, 1023))
        return top * (1 + 2.0**self.mantissa_bits * abs(self.weight)) if self.mantissa_bits else top

    def scaled(self, factor: float) -> Values:
        fraction, shift = math.frexp(factor)
        top = self.top + (shift - 1)
        if fraction == 0.5 and _in_range(top, self.below):
            return replace(self, top=top)
        return Floats(self.numbers() * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Exponents:
        return replace(self, weight=round_scalar(self.weight, dtype, key)) if self.mantissa_bits else self

    @kept
    def _depths(self) -> Integers:
        return Integers(plain(self.below))

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {
            "header": 1,
            "scale": 2 + (SCALARS[dtype].size if self.mantissa_bits else 0),
            "sign": (self.n + 7) // 8,
            "value": self._depths.nbytes + (self.n * self.mantissa_bits + 7) // 8,
        }

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        top = struct.pack("<h", self.top)
        out: list[Buffer] = [self.shared_bytes(dtype), top, plain(self.negative).data, self._depths.write()]
        if self.mantissa is not None:
            out += [SCALARS[dtype].pack(self.weight), plain(self.mantissa).data]
        return out

    def shared_bytes(self, dtype: torch.dtype) -> bytes:
        return Shared([self.mantissa_bits])

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Exponents:
        """The inverse of `write`."""
        mantissa_bits = reader.shared.byte()
        reader.book("header")
        top = struct.unpack("<h", reader.take(2))[0]
        reader.book("scale")
        negative = _taken(reader, n)
        reader.book("sign")
        below = torch.from_numpy(Integers.read_narrow(reader, n))
        reader.book("value")
        if mantissa_bits > 52 or not _in_range(top, below):
            raise WireError("the message holds numbers outside the range of a float64")
        if mantissa_bits == 0:
            return cls(negative, below, top)
        weight = reader.scalar(dtype)
        reader.book("scale")
        return cls(negative, below, top, _taken(reader, n * mantissa_bits), mantissa_bits, weight)


def _taken(reader: Reader, nbits: int) -> Tensor:
    """So many bits, in whole bytes; a copy, which outlives the message."""
    return (
        torch.frombuffer(bytearray(reader.take((nbits + 7) // 8)), dtype=torch.uint8)
        if nbits
        else torch.zeros(0).byte()
    )


def _in_range(top: int, below: Tensor) -> bool:
    """Whether the exponents are those of normal float64 numbers."""
    return not len(below) or (top <= 1023 and top - int(plain(below).max()) >= -1022)
