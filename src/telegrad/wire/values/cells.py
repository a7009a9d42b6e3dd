"""Cells of a quantiser of the standard normal law; what they stand for is computed at both ends and never sent."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.gaussian import dead_zone_centroids, lloyd_max
from telegrad.random import Key
from telegrad.wire.bits import Reader, pack_fixed, unpack_fixed
from telegrad.wire.integers import Integers
from telegrad.wire.values.base import Sizes, Values

__all__ = ["DeadZoneCells", "LloydMaxCells", "wider_entries"]

_MOST_BITS = 8
_LARGEST_CELL = 1 << 20


def wider_entries(n: int, share: int) -> Tensor:
    """Which of n entries have one bit more, bool: `share` of 65536, evenly spaced."""
    place = torch.arange(n + 1, dtype=torch.int64)
    return ((place * share) >> 16).diff() > 0


@dataclass(frozen=True)
class LloydMaxCells(Values):
    """Lloyd-Max cells of `bits` bits, 0 … 2^bits − 1 from the lowest; `share` of 65536 entries have one bit more."""

    tag: ClassVar[int] = 9
    symbol: Tensor = field(repr=False)
    bits: int
    share: int = 0

    @property
    def n(self) -> int:
        return len(self.symbol)

    @classmethod
    def quantise(cls, z: Tensor, bits: int, share: int = 0) -> LloydMaxCells:
        """The nearest centroids of z; an entry on an edge goes to the upper cell."""
        symbol = torch.bucketize(z, _edges(bits).to(z.device), right=True)
        if share:
            wide = wider_entries(len(z), share).to(z.device)
            symbol = torch.where(wide, torch.bucketize(z, _edges(bits + 1).to(z.device), right=True), symbol)
        return cls(symbol, bits, share)

    def numbers(self) -> Tensor:
        table = _both_signs(self.bits).to(self.symbol.device)
        if not self.share:
            return table[self.symbol]
        wide, finer = self._wide.to(self.symbol.device), _both_signs(self.bits + 1).to(self.symbol.device)
        return torch.where(wide, finer[self.symbol], table[self.symbol.clamp(max=len(table) - 1)])

    @cached_property
    def _wide(self) -> Tensor:
        return wider_entries(self.n, self.share)

    def scaled(self, factor: float) -> Values:
        raise NotImplementedError("cells are of the standard normal law; what holds them has the scale")

    def rounded(self, dtype: torch.dtype, key: Key | None) -> LloydMaxCells:
        return self

    def sizes(self, dtype: torch.dtype) -> Sizes:
        more = int(self._wide.sum()) if self.share else 0
        return {"header": 3, "value": ((self.n - more) * self.bits + 7) // 8 + (more * (self.bits + 1) + 7) // 8}

    def write(self, dtype: torch.dtype) -> bytes:
        symbol, wide = self.symbol.cpu().numpy().astype(np.int64), self._wide.numpy()
        packed = pack_fixed(symbol[~wide], self.bits) + pack_fixed(symbol[wide], self.bits + 1)
        return struct.pack("<BH", self.bits, self.share) + packed

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> LloydMaxCells:
        """The inverse of `write`."""
        bits, share = struct.unpack("<BH", reader.take(3))
        if not 1 <= bits <= _MOST_BITS - (share > 0) or n > 8 * reader.left:
            raise WireError(f"{n} cells of {bits} bits are not in the message")
        wide = wider_entries(n, share).numpy()
        symbol = np.empty(n, dtype=np.int64)
        symbol[~wide] = unpack_fixed(reader, n - int(wide.sum()), bits)
        symbol[wide] = unpack_fixed(reader, int(wide.sum()), bits + 1)
        return cls(torch.from_numpy(symbol), bits, share)


def _both_signs(bits: int) -> Tensor:
    centroids = lloyd_max(bits)[0].astype(np.float32).astype(np.float64)
    return torch.from_numpy(np.concatenate([-centroids[::-1], centroids]))


def _edges(bits: int) -> Tensor:
    centroids = _both_signs(bits)
    return (centroids[1:] + centroids[:-1]) / 2


@dataclass(frozen=True)
class DeadZoneCells(Values):
    """Signed cells of a uniform quantiser with a dead zone: 0 for |z| < zero, else steps beyond it, counted from 1."""

    tag: ClassVar[int] = 10
    symbol: Tensor = field(repr=False)
    zero: float
    step: float

    @property
    def n(self) -> int:
        return len(self.symbol)

    @classmethod
    def quantise(cls, z: Tensor, zero: float, step: float) -> DeadZoneCells:
        """The cells of z, for a zone and a step as float32 holds them."""
        zero, step = float(np.float32(zero)), float(np.float32(step))
        magnitude = ((z.abs() - zero) / step).floor().add(1).clamp(min=0, max=_LARGEST_CELL)
        return cls((magnitude * z.sign()).to(torch.int64), zero, step)

    def numbers(self) -> Tensor:
        magnitude = self.symbol.abs()
        table = dead_zone_centroids(self.zero, self.step, int(magnitude.max()) if self.n else 0).to(magnitude.device)
        return table[magnitude] * self.symbol.sign()

    def scaled(self, factor: float) -> Values:
        raise NotImplementedError("cells are of the standard normal law; what holds them has the scale")

    def rounded(self, dtype: torch.dtype, key: Key | None) -> DeadZoneCells:
        return self

    @cached_property
    def _folded(self) -> Integers:
        """0, 1, −1, 2, −2, … as 0, 1, 2, 3, 4, …, less the smallest that occurs (0 or 1, as listed places leave it)."""
        symbol = self.symbol.cpu().numpy().astype(np.int64)
        folded = 2 * np.abs(symbol) - (symbol > 0)
        return Integers(folded - self._base)

    @cached_property
    def _base(self) -> int:
        return int(self.n > 0 and bool((self.symbol != 0).all()))

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {"header": 9, "value": self._folded.nbytes}

    def write(self, dtype: torch.dtype) -> bytes:
        return struct.pack("<ffB", self.zero, self.step, self._base) + self._folded.write()

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> DeadZoneCells:
        """The inverse of `write`."""
        zero, step, base = struct.unpack("<ffB", reader.take(9))
        # The comparison is false for NaN, too.
        if not (0 < zero < 2.0**10 and 2.0**-16 < step < 2.0**10 and base <= 1):
            raise WireError(f"a dead zone of {zero} with steps of {step} is not ours")
        folded = Integers.read(reader, n) + base
        if n and int(folded.max()) > 2 * _LARGEST_CELL:
            raise WireError(f"cell {int(folded.max())} of a quantiser lies beyond all that occur")
        return cls(torch.from_numpy(np.where(folded % 2 == 1, 1, -1) * ((folded + 1) // 2)), zero, step)
