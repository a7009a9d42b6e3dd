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
from telegrad.kernels.compiled import kept
from telegrad.kernels.exponents import joined
from telegrad.kernels.magnitudes import plain
from telegrad.random import Key
from telegrad.wire.bits import Reader, pack_bits, pack_fixed, unpack_fixed
from telegrad.wire.integers import Integers
from telegrad.wire.values.base import (
    Sizes,
    Values,
    pack_scalar,
    read_scalar,
    round_scalar,
    scalar_nbytes,
)
from telegrad.wire.values.floats import Floats

__all__ = ["Exponents"]


@dataclass(frozen=True)
class Exponents(Values):
    """sign · 2^exponent · (1 + weight · mantissa): floats cut to their first bits, with mantissa integers of
    `mantissa_bits` bits.

    With no mantissa bits these are signed powers of two; with weight 2^−l and l bits, truncated floats; with one bit
    and weight 2^−l / p_l, a level of the floating-point ladder.
    """

    tag: ClassVar[int] = 3
    negative: Tensor = field(repr=False)
    exponent: Tensor = field(repr=False)
    mantissa: Tensor | None = field(default=None, repr=False)
    mantissa_bits: int = 0
    weight: float = 0.0

    @property
    def n(self) -> int:
        return len(self.exponent)

    def numbers(self) -> Tensor:
        return joined(self.negative, self.exponent, self.mantissa, self.weight, torch.float64)

    def numbers_as(self, dtype: torch.dtype) -> Tensor:
        return joined(self.negative, self.exponent, self.mantissa, self.weight, dtype).to(dtype)

    def largest(self) -> float:
        if not self.n:
            return 0.0
        top = math.ldexp(1.0, min(int(self.exponent.max()), 1023))
        return top * (1 + 2.0**self.mantissa_bits * abs(self.weight)) if self.mantissa_bits else top

    def scaled(self, factor: float) -> Values:
        fraction, shift = math.frexp(factor)
        exponent = self.exponent.to(torch.int64) + (shift - 1)
        if fraction == 0.5 and bool(((exponent >= -1022) & (exponent <= 1023)).all()):
            return replace(self, exponent=exponent)
        return Floats(self.numbers() * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Exponents:
        return replace(self, weight=round_scalar(self.weight, dtype, key)) if self.mantissa_bits else self

    @kept
    def _below_top(self) -> Integers:
        # Exponents of floats differ by no more than 16 bits hold.
        below = np.empty(self.n, dtype=np.uint16)
        return Integers(np.subtract(self._top, plain(self.exponent), out=below, casting="unsafe"))

    @kept
    def _top(self) -> int:
        return int(self.exponent.max()) if self.n else 0

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {
            "header": 1,
            "scale": 2 + (scalar_nbytes(dtype) if self.mantissa_bits else 0),
            "sign": (self.n + 7) // 8,
            "value": self._below_top.nbytes + (self.n * self.mantissa_bits + 7) // 8,
        }

    def write(self, dtype: torch.dtype) -> bytes:
        out = bytes([self.mantissa_bits]) + struct.pack("<h", self._top) + pack_bits(plain(self.negative))
        out += self._below_top.write()
        if self.mantissa is None:
            return out
        return out + pack_scalar(self.weight, dtype) + pack_fixed(plain(self.mantissa), self.mantissa_bits)

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Exponents:
        """The inverse of `write`."""
        mantissa_bits = reader.byte()
        reader.book("header")
        top = struct.unpack("<h", reader.take(2))[0]
        reader.book("scale")
        negative = torch.from_numpy(reader.bits(n).astype(bool))
        reader.book("sign")
        exponent = torch.from_numpy(top - Integers.read_narrow(reader, n).astype(np.int64, copy=False))
        reader.book("value")
        if mantissa_bits > 52 or (n and not (int(exponent.min()) >= -1022 and top <= 1023)):
            raise WireError("the message holds numbers outside the range of a float64")
        if mantissa_bits == 0:
            return cls(negative, exponent)
        weight = read_scalar(reader, dtype)
        reader.book("scale")
        return cls(negative, exponent, torch.from_numpy(unpack_fixed(reader, n, mantissa_bits)), mantissa_bits, weight)
