"""What the entries of a message are, and how they are packed: floats, grid points, truncated floats, or a table's
entries.

A compressor builds these exactly, in float64; `rounded` makes them sendable without a bias: what a message carries is
rounded stochastically to what its dtype can hold. Scales travel as float32 (float64 in messages of float64 tensors).
"""

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.reference import power_of_two, round_to_dtype
from telegrad.random import Key
from telegrad.wire.bits import (
    Reader,
    integers_nbytes,
    pack_bits,
    pack_fixed,
    pack_integers,
    pack_varint,
    unpack_fixed,
    unpack_integers,
    varint_nbytes,
)

__all__ = ["DTYPES", "Exponents", "Floats", "Grid", "Table", "Values", "read_values"]

DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""The dtypes a message can carry; their order is their number on the wire."""

Sizes = dict[str, int]


class Values(ABC):
    """n numbers, in the order of their positions."""

    tag: ClassVar[int]

    @property
    @abstractmethod
    def n(self) -> int:
        """How many numbers."""

    @abstractmethod
    def numbers(self) -> Tensor:
        """The numbers, shape (n,): float64, or the dtype they are sent in."""

    @abstractmethod
    def scaled(self, factor: float) -> Values:
        """All numbers times `factor`."""

    @abstractmethod
    def rounded(self, dtype: torch.dtype, key: Key | None) -> Values:
        """These numbers as a message for a tensor of `dtype` can carry them: unbiased with a key, to nearest
        without.
        """

    @abstractmethod
    def sizes(self, dtype: torch.dtype) -> Sizes:
        """Bytes of `write(dtype)` by field."""

    @abstractmethod
    def write(self, dtype: torch.dtype) -> bytes:
        """The packed numbers; n and dtype are known from elsewhere in the message."""


def _scalar_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _scalar_nbytes(dtype: torch.dtype) -> int:
    return 8 if dtype == torch.float64 else 4


def _pack_scalar(value: float, dtype: torch.dtype) -> bytes:
    return struct.pack("<d" if dtype == torch.float64 else "<f", value)


def _read_scalar(reader: Reader, dtype: torch.dtype) -> float:
    form = "<d" if dtype == torch.float64 else "<f"
    return float(struct.unpack(form, reader.take(_scalar_nbytes(dtype)))[0])


def _round_scalar(value: float, dtype: torch.dtype, key: Key | None) -> float:
    return float(
        round_to_dtype(
            torch.tensor([value], dtype=torch.float64), _scalar_dtype(dtype), key.uniform(1) if key else None
        )
    )


@dataclass(frozen=True)
class Floats(Values):
    """Numbers as they are, in their own float dtype: 16, 32 or 64 bits each."""

    tag: ClassVar[int] = 1
    value: Tensor = field(repr=False)

    @property
    def n(self) -> int:
        return len(self.value)

    def numbers(self) -> Tensor:
        return self.value

    def scaled(self, factor: float) -> Floats:
        return Floats(self.value.double() * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Floats:
        uniforms = key.uniform(self.n, device=self.value.device) if key else None
        return Floats(round_to_dtype(self.value.double(), dtype, uniforms))

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {"header": 1, "value": self.n * self.value.element_size()}

    def write(self, dtype: torch.dtype) -> bytes:
        raw = self.value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        return bytes([DTYPES.index(self.value.dtype)]) + raw

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Floats:
        """The inverse of `write`."""
        code = reader.byte()
        if code >= len(DTYPES):
            raise WireError(f"unknown dtype {code} in the message")
        raw = bytearray(reader.take(n * DTYPES[code].itemsize))
        return cls(torch.frombuffer(raw, dtype=DTYPES[code]) if n else torch.zeros(0, dtype=DTYPES[code]))


@dataclass(frozen=True)
class Grid(Values):
    """scale · symbol with non-zero integer symbols: a sign bit each, then magnitudes where one exceeds 1.

    Zeros are left out by the positions (`Positions.keep`).
    """

    tag: ClassVar[int] = 2
    symbol: Tensor = field(repr=False)
    scale: float

    @property
    def n(self) -> int:
        return len(self.symbol)

    def numbers(self) -> Tensor:
        return self.symbol.double() * self.scale

    def scaled(self, factor: float) -> Grid:
        return replace(self, scale=self.scale * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Grid:
        return replace(self, scale=_round_scalar(self.scale, dtype, key))

    @cached_property
    def _beyond_one(self) -> np.ndarray:
        return np.abs(self.symbol.cpu().numpy().astype(np.int64)) - 1

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {"scale": _scalar_nbytes(dtype), "sign": (self.n + 7) // 8, "value": integers_nbytes(self._beyond_one)}

    def write(self, dtype: torch.dtype) -> bytes:
        signs = pack_bits((self.symbol < 0).cpu().numpy())
        return _pack_scalar(self.scale, dtype) + signs + pack_integers(self._beyond_one)

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Grid:
        """The inverse of `write`."""
        scale = _read_scalar(reader, dtype)
        signs = 1 - 2 * reader.bits(n).astype(np.int64)
        return cls(torch.from_numpy(signs * (unpack_integers(reader, n) + 1)), scale)


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
        power = power_of_two(self.exponent)
        value = power if self.mantissa is None else power + power * (self.mantissa.double() * self.weight)
        return torch.where(self.negative, -value, value)

    def scaled(self, factor: float) -> Values:
        fraction, shift = math.frexp(factor)
        exponent = self.exponent.to(torch.int64) + (shift - 1)
        if fraction == 0.5 and bool(((exponent >= -1022) & (exponent <= 1023)).all()):
            return replace(self, exponent=exponent)
        return Floats(self.numbers() * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Exponents:
        return replace(self, weight=_round_scalar(self.weight, dtype, key)) if self.mantissa_bits else self

    @cached_property
    def _below_top(self) -> np.ndarray:
        return self._top - self.exponent.cpu().numpy().astype(np.int64)

    @cached_property
    def _top(self) -> int:
        return int(self.exponent.max()) if self.n else 0

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {
            "header": 1,
            "scale": 2 + (_scalar_nbytes(dtype) if self.mantissa_bits else 0),
            "sign": (self.n + 7) // 8,
            "value": integers_nbytes(self._below_top) + (self.n * self.mantissa_bits + 7) // 8,
        }

    def write(self, dtype: torch.dtype) -> bytes:
        out = bytes([self.mantissa_bits]) + struct.pack("<h", self._top) + pack_bits(self.negative.cpu().numpy())
        out += pack_integers(self._below_top)
        if self.mantissa is None:
            return out
        mantissa = self.mantissa.cpu().numpy().astype(np.int64)
        return out + _pack_scalar(self.weight, dtype) + pack_fixed(mantissa, self.mantissa_bits)

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Exponents:
        """The inverse of `write`."""
        mantissa_bits, top = reader.byte(), struct.unpack("<h", reader.take(2))[0]
        negative = torch.from_numpy(reader.bits(n).astype(bool))
        exponent = torch.from_numpy(top - unpack_integers(reader, n))
        if mantissa_bits > 52 or (n and not (int(exponent.min()) >= -1022 and top <= 1023)):
            raise WireError("the message holds numbers outside the range of a float64")
        if mantissa_bits == 0:
            return cls(negative, exponent)
        weight = _read_scalar(reader, dtype)
        return cls(negative, exponent, torch.from_numpy(unpack_fixed(reader, n, mantissa_bits)), mantissa_bits, weight)


@dataclass(frozen=True)
class Table(Values):
    """table[symbol]: few distinct numbers, sent once, and which one each entry is."""

    tag: ClassVar[int] = 4
    symbol: Tensor = field(repr=False)
    table: Tensor = field(repr=False)

    @property
    def n(self) -> int:
        return len(self.symbol)

    def numbers(self) -> Tensor:
        return self.table[self.symbol]

    def scaled(self, factor: float) -> Table:
        return replace(self, table=self.table * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Table:
        uniforms = key.uniform(len(self.table), device=self.table.device) if key else None
        return replace(self, table=round_to_dtype(self.table.double(), _scalar_dtype(dtype), uniforms).double())

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {
            "header": varint_nbytes(len(self.table)),
            "scale": len(self.table) * _scalar_nbytes(dtype),
            "value": integers_nbytes(self.symbol.cpu().numpy().astype(np.int64)),
        }

    def write(self, dtype: torch.dtype) -> bytes:
        table = self.table.to(_scalar_dtype(dtype)).cpu().numpy().tobytes()
        return pack_varint(len(self.table)) + table + pack_integers(self.symbol.cpu().numpy().astype(np.int64))

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Table:
        """The inverse of `write`."""
        size = reader.varint()
        raw = bytearray(reader.take(size * _scalar_nbytes(dtype)))
        table = (
            torch.frombuffer(raw, dtype=_scalar_dtype(dtype)).double() if size else torch.zeros(0, dtype=torch.float64)
        )
        symbol = unpack_integers(reader, n)
        if n and int(symbol.max()) >= size:
            raise WireError(f"the message refers to entry {int(symbol.max())} of a table of {size}")
        return cls(torch.from_numpy(symbol), table)


_KINDS: dict[int, type[Floats] | type[Grid] | type[Exponents] | type[Table]] = {
    cls.tag: cls for cls in (Floats, Grid, Exponents, Table)
}


def read_values(tag: int, reader: Reader, n: int, dtype: torch.dtype) -> Values:
    """Read n values of kind `tag` in a message for a tensor of `dtype`."""
    if tag not in _KINDS:
        raise WireError(f"unknown kind of values {tag} in the message")
    return _KINDS[tag].read(reader, n, dtype)
