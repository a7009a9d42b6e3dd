"""Few distinct numbers, sent once, and which one each entry is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.quantising.narrowing import narrowed
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import kept
from telegrad.random import Key
from telegrad.wire.bits import SCALARS, Buffer, Reader, pack_varint, varint_nbytes
from telegrad.wire.distinct import distinct
from telegrad.wire.integers import Integers
from telegrad.wire.values.base import Sizes, Values, largest_of, scalar_dtype
from telegrad.wire.values.floats import Floats
from telegrad.wire.values.grid import Grid

__all__ = ["Table", "shortest_exact"]


@dataclass(frozen=True)
class Table(Values):
    """table[symbol]: few distinct numbers, sent once, and which one each entry is, uint8, uint16 or int64."""

    tag: ClassVar[int] = 4
    symbol: Tensor = field(repr=False)
    table: Tensor = field(repr=False)

    @property
    def n(self) -> int:
        return len(self.symbol)

    def numbers(self) -> Tensor:
        return self._looked_up(self.table)

    def numbers_as(self, dtype: torch.dtype) -> Tensor:
        return self._looked_up(self.table.to(dtype))

    def _looked_up(self, table: Tensor) -> Tensor:
        # numpy, unlike torch, takes indices of any integer type.
        return torch.from_numpy(plain(table).take(plain(self.symbol))).to(table.dtype)

    def largest(self) -> float:
        return largest_of(self.table)

    def scaled(self, factor: float) -> Table:
        return replace(self, table=self.table * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Table:
        return replace(self, table=narrowed(self.table, scalar_dtype(dtype), key).double())

    @kept
    def _symbols(self) -> Integers:
        return Integers(plain(self.symbol))

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {
            "header": varint_nbytes(len(self.table)),
            "scale": len(self.table) * SCALARS[dtype].size,
            "value": self._symbols.nbytes,
        }

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        table = self.table.to(scalar_dtype(dtype)).cpu().numpy().tobytes()
        return [pack_varint(len(self.table)), table, self._symbols.write()]

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Table:
        """The inverse of `write`."""
        size = reader.varint()
        reader.book("header")
        raw = bytearray(reader.take(size * SCALARS[dtype].size))
        reader.book("scale")
        table = (
            torch.frombuffer(raw, dtype=scalar_dtype(dtype)).double() if size else torch.zeros(0, dtype=torch.float64)
        )
        symbol = Integers.read_narrow(reader, n)
        if n and int(symbol.max()) >= size:
            raise WireError(f"the message refers to entry {int(symbol.max())} of a table of {size}")
        return cls(torch.from_numpy(symbol), table)


def shortest_exact(value: Tensor) -> Values:
    """The numbers as they are, in the shortest form: where few of them are distinct, these and which one each is, or
    where all have one magnitude, it and their signs; else each in its own precision.
    """
    whole = Floats(value)
    found = distinct(plain(value))
    if found is None:
        return whole
    table, symbol = found
    forms: list[Values] = [whole, Table(torch.from_numpy(symbol), torch.from_numpy(table.astype(np.float64)))]
    if len(table) == 2 and table[0] == -table[1]:
        forms.append(Grid(torch.from_numpy(2 * symbol.astype(np.int8) - 1), float(table[1])))
    return min(forms, key=lambda form: sum(form.sizes(value.dtype).values()))
