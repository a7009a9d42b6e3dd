"""A matrix of low rank as the product of two thin ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.quantising.narrowing import narrowed
from telegrad.random import Key
from telegrad.wire.bits import SCALARS, Buffer, Reader, pack_varint, varint_nbytes
from telegrad.wire.values.base import Sizes, Values, scalar_dtype

__all__ = ["LowRank", "as_matrix"]


def as_matrix(v: Tensor, rows: int) -> Tensor:
    """The flat v as a matrix of `rows` rows, filled up with zeros at the end where d is no multiple."""
    columns = -(-len(v) // rows)
    return torch.nn.functional.pad(v, (0, rows * columns - len(v))).view(rows, columns)


@dataclass(frozen=True)
class LowRank(Values):
    """The first `size` entries, row by row, of left · rightᵀ: `left` of shape (rows, rank), `right` (columns, rank).

    Factors travel as scales do: in float32, in float64 in messages of float64 tensors.
    """

    tag: ClassVar[int] = 6
    size: int
    left: Tensor = field(repr=False)
    right: Tensor = field(repr=False)

    @property
    def n(self) -> int:
        return self.size

    def numbers(self) -> Tensor:
        product = torch.zeros(len(self.left), len(self.right), dtype=torch.float64, device=self.left.device)
        # Column by column and not as a matrix product, whose last bits depend on the machine and on its threads.
        for left, right in zip(self.left.double().t(), self.right.double().t(), strict=True):
            product += left[:, None] * right
        return product.view(-1)[: self.size]

    def largest(self) -> float:
        """A bound on every number's magnitude."""
        return float((self.left.abs().amax(0).double() * self.right.abs().amax(0).double()).sum())

    def scaled(self, factor: float) -> LowRank:
        return replace(self, right=self.right * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> LowRank:
        # Independent roundings of the two factors keep the mean of their product.
        return LowRank(self.size, _rounded(self.left, dtype, key, "left"), _rounded(self.right, dtype, key, "right"))

    def sizes(self, dtype: torch.dtype) -> Sizes:
        rows, rank = self.left.shape
        return {
            "header": varint_nbytes(rows) + varint_nbytes(rank),
            "value": (self.left.numel() + self.right.numel()) * SCALARS[dtype].size,
        }

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        rows, rank = self.left.shape
        factors = torch.cat([self.left, self.right]).to(scalar_dtype(dtype)).cpu().contiguous().numpy()
        return [pack_varint(rows), pack_varint(rank), factors.tobytes()]

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> LowRank:
        """The inverse of `write`."""
        rows, rank = reader.varint(), reader.varint()
        reader.book("header")
        columns = -(-n // max(rows, 1))
        if not (1 <= rows <= n and 1 <= rank <= min(rows, columns)):
            raise WireError(f"a matrix of {rows} rows and rank {rank} in a message for {n} entries")
        raw = bytearray(reader.take((rows + columns) * rank * SCALARS[dtype].size))
        left, right = torch.frombuffer(raw, dtype=scalar_dtype(dtype)).view(-1, rank).split([rows, columns])
        return cls(n, left, right)


def _rounded(factor: Tensor, dtype: torch.dtype, key: Key | None, name: str) -> Tensor:
    return narrowed(factor, scalar_dtype(dtype), key.fold(factor=name) if key else None)
