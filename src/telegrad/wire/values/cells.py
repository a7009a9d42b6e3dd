"""Cells of a quantiser of the standard normal law; what they stand for is computed at both ends and never sent."""

from __future__ import annotations

import struct
from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.coding.symbols import UNSIGNED, folded, unfolded
from telegrad.kernels.quantising.gaussian_cells import dead_zone_centroids, dead_zone_centroids_of, lloyd_max
from telegrad.kernels.quantising.normalised_blocks import cells_between, dead_zone_cells, looked_up, product
from telegrad.kernels.statistics.magnitudes import sum_of_magnitudes_in
from telegrad.kernels.threads import in_chunks, kept
from telegrad.wire.bits import Reader, Shared, pack_fixed, unpack_fixed
from telegrad.wire.integers import Integers
from telegrad.wire.kinds import Packed
from telegrad.wire.values.base import Sizes, largest_of

__all__ = ["Cells", "DeadZoneCells", "LloydMaxCells", "wider_entries"]

_MOST_BITS = 8
_LARGEST_CELL = 1 << 20
_SHORT_TABLE = 1 << 14


def wider_entries(n: int, share: int) -> Tensor:
    """Which of n entries have one bit more, bool: `share` of 65536, evenly spaced."""
    place = torch.arange(n + 1, dtype=torch.int64)
    return ((place * share) >> 16).diff() > 0


class Cells(Packed):
    """n cells of a quantiser of the standard normal law, none with a scale of its own: what holds them has it.

    `symbol`: which cell each entry lies in.
    """

    symbol: Tensor

    @property
    def n(self) -> int:
        return len(self.symbol)

    def numbers(self) -> Tensor:
        """What the cells stand for, float64, shape (n,)."""
        out = np.empty(self.n)
        in_chunks(lambda _, low, high: self.fill(low, out[low:high]), self.n)
        return torch.from_numpy(out)

    @abstractmethod
    def fill(self, start: int, out: np.ndarray) -> None:
        """Write numbers start … as many as `out` holds."""

    @abstractmethod
    def largest(self) -> float:
        """A bound on every number's magnitude."""

    @abstractmethod
    def sizes(self) -> Sizes:
        """Bytes of `write()` by field."""

    @classmethod
    @abstractmethod
    def read(cls, reader: Reader, n: int) -> Cells:
        """The inverse of `write`. Raises `WireError`."""


@dataclass(frozen=True)
class LloydMaxCells(Cells):
    """Lloyd-Max cells of `bits` bits, 0 … 2^bits − 1 from the lowest; `share` of 65536 entries have one bit more."""

    tag: ClassVar[int] = 9
    symbol: Tensor = field(repr=False)
    bits: int
    share: int = 0

    def quantise(self, start: int, z: np.ndarray) -> float:
        """Make symbols start … of the normalised z: the nearest centroids q, on an edge the upper. Returns ⟨q, z⟩."""
        symbol, match = self.symbol.numpy()[start : start + len(z)], 0.0
        if not self.share:
            cells_between(z, _edges(self.bits), symbol)
            if self.bits == 1:
                return float(_both_signs(1)[1]) * sum_of_magnitudes_in(z)
            return product(symbol, _both_signs(self.bits), 0, z)
        for which, bits in self._parts(start, len(z)):
            cells, part = np.empty(len(z[which]), dtype=np.uint8), z[which]
            cells_between(part, _edges(bits), cells)
            symbol[which] = cells
            match += product(cells, _both_signs(bits), 0, part)
        return match

    def numbers(self) -> Tensor:
        out = np.empty(self.n)
        self.fill(0, out)
        return torch.from_numpy(out)

    def fill(self, start: int, out: np.ndarray) -> None:
        symbol = self.symbol.numpy()[start : start + len(out)]
        for which, bits in self._parts(start, len(out)):
            table = _both_signs(bits)
            if isinstance(which, slice):
                looked_up(symbol, table, 0, out)
            else:
                out[which] = table[symbol[which]]

    def _parts(self, start: int, count: int) -> list[tuple[Any, int]]:
        """Which of `count` neighbours have how many bits."""
        if not self.share:
            return [(slice(None), self.bits)]
        wide = self._wide.numpy()[start : start + count]
        return [(~wide, self.bits), (wide, self.bits + 1)]

    @classmethod
    def blank(cls, n: int, bits: int, share: int) -> LloydMaxCells:
        """Room for n symbols, for `quantise` to fill."""
        return cls(torch.empty(n, dtype=torch.uint8), bits, share)

    @kept
    def _wide(self) -> Tensor:
        return wider_entries(self.n, self.share)

    def largest(self) -> float:
        return float(_both_signs(self.bits + (self.share > 0))[-1])

    def sizes(self) -> Sizes:
        more = (self.n * self.share) >> 16
        return {"header": 3, "value": ((self.n - more) * self.bits + 7) // 8 + (more * (self.bits + 1) + 7) // 8}

    def parts(self) -> list[bytes]:
        symbol = self.symbol.numpy()
        return [self.shared_bytes, *(pack_fixed(symbol[which], bits) for which, bits in self._parts(0, self.n))]

    @property
    def shared_bytes(self) -> bytes:
        return Shared(struct.pack("<BH", self.bits, self.share))

    @classmethod
    def read(cls, reader: Reader, n: int) -> LloydMaxCells:
        """The inverse of `write`."""
        bits, share = struct.unpack("<BH", reader.shared.take(3))
        reader.book("header")
        if not 1 <= bits <= _MOST_BITS - (share > 0) or n > 8 * reader.left:
            raise WireError(f"{n} cells of {bits} bits are not in the message")
        if not share:
            return cls(torch.from_numpy(unpack_fixed(reader, n, bits)), bits)
        cells = cls.blank(n, bits, share)
        for which, width in cells._parts(0, n):
            cells.symbol.numpy()[which] = unpack_fixed(reader, int(which.sum()), width)
        return cells


@cache
def _both_signs(bits: int) -> np.ndarray:
    centroids = lloyd_max(bits)[0].astype(np.float32).astype(np.float64)
    return np.concatenate([-centroids[::-1], centroids])


@cache
def _edges(bits: int) -> np.ndarray:
    centroids = _both_signs(bits)
    return (centroids[1:] + centroids[:-1]) / 2


@dataclass(frozen=True)
class DeadZoneCells(Cells):
    """Signed cells of a uniform quantiser with a dead zone: 0 for |z| < zero, else steps beyond it, counted from 1."""

    tag: ClassVar[int] = 10
    symbol: Tensor = field(repr=False)
    zero: float
    step: float

    @classmethod
    def blank(cls, n: int, zero: float, step: float, reach: float) -> DeadZoneCells:
        """Room for n symbols of numbers up to `reach`, for `quantise` to fill, in the smallest integer type for them;
        zone and step as float32 holds them.
        """
        zero, step = float(np.float32(zero)), float(np.float32(step))
        top = cls(torch.empty(0), zero, step).top(reach)
        dtype = torch.int8 if top < 128 else torch.int16 if top < 32768 else torch.int64
        return cls(torch.empty(n, dtype=dtype), zero, step)

    def top(self, reach: float) -> int:
        """The symbol of a number `reach`, or 1."""
        return max(1, min(int((reach - self.zero) / self.step) + 1, _LARGEST_CELL))

    def quantise(self, start: int, z: np.ndarray) -> np.ndarray:
        """Make symbols start … of the normalised z, and return them."""
        symbol = self.symbol.numpy()[start : start + len(z)]
        dead_zone_cells(z, self.zero, self.step, _LARGEST_CELL, symbol)
        return symbol

    def fill(self, start: int, out: np.ndarray) -> None:
        symbol = self.symbol.numpy()[start : start + len(out)]
        if self._few is None:
            looked_up(symbol, *self.table, out)
        else:
            out[:] = self._few[start : start + len(out)]

    @kept
    def _few(self) -> np.ndarray | None:
        """What each symbol stands for, where a table of all up to the largest were far longer than they are."""
        if largest_of(self.symbol) <= max(_SHORT_TABLE, 8 * self.n):
            return None
        symbol = self.symbol.numpy().astype(np.int64)
        some = symbol != 0
        numbers = np.zeros(self.n)
        numbers[some] = dead_zone_centroids_of(self.zero, self.step, np.abs(symbol[some])) * np.sign(symbol[some])
        return numbers

    @kept
    def table(self) -> tuple[np.ndarray, int]:
        """What the symbols from the smallest on stand for, and the smallest."""
        most = int(largest_of(self.symbol))
        positive = dead_zone_centroids(self.zero, self.step, most).numpy()
        return np.concatenate([-positive[:0:-1], positive]), -most

    def largest(self) -> float:
        return self.zero + largest_of(self.symbol) * self.step

    @kept
    def _folded(self) -> Integers:
        """0, −1, 1, −2, 2, … as 0, 1, 2, 3, 4, …, less the smallest that occurs (0 or 1, as listed places leave it)."""
        symbol = self.symbol.numpy()
        if not self._base and symbol.dtype in UNSIGNED:  # which are folded as they are sent
            return Integers(symbol)
        sent = folded(symbol)
        sent -= self._base
        return Integers(sent)

    @kept
    def _base(self) -> int:
        return int(self.n > 0 and int(self.symbol.count_nonzero()) == self.n)

    def sizes(self) -> Sizes:
        return {"header": 9, "value": self._folded.nbytes}

    def parts(self) -> list[bytes]:
        return [struct.pack("<ffB", self.zero, self.step, self._base), self._folded.write()]

    @classmethod
    def read(cls, reader: Reader, n: int) -> DeadZoneCells:
        """The inverse of `write`."""
        zero, step, base = struct.unpack("<ffB", reader.take(9))
        reader.book("header")
        # The comparison is false for NaN, too.
        if not (0 < zero < 2.0**10 and 2.0**-16 < step < 2.0**10 and base <= 1):
            raise WireError(f"a dead zone of {zero} with steps of {step} is not ours")
        sent = Integers.read_narrow(reader, n)
        largest = int(sent.max()) + base if n else 0
        if largest > 2 * _LARGEST_CELL:
            raise WireError(f"cell {largest} of a quantiser lies beyond all that occur")
        wide = sent if largest <= np.iinfo(sent.dtype).max else sent.astype(np.int64)
        return cls(torch.from_numpy(unfolded(wide + wide.dtype.type(base))), zero, step)
