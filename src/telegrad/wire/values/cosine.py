"""Values in the cosine basis: an inner message of coefficients, chunk by chunk."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.wire.bits import Reader, pack_varint, varint_nbytes
from telegrad.wire.values.base import Buffer, Sizes
from telegrad.wire.values.rotated import Inner, read_inner

__all__ = ["LONGEST_CHUNK", "Cosine", "cosines", "runs_of_chunks"]

LONGEST_CHUNK = 4096
_RUN = 1 << 18


@lru_cache(16)
def _matrix(n: int) -> Tensor:
    """The orthonormal DCT-II: row k holds cos(π (2j + 1) k / 2n), times √(2/n), the first row times √(1/n)."""
    place = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / (2 * n) * place[:, None] * (2 * place + 1)) * math.sqrt(2 / n)
    matrix[0] = math.sqrt(1 / n)
    return matrix


def runs_of_chunks(d: int, chunk: int) -> list[tuple[int, int]]:
    """d entries cut into runs of so many whole chunks that their transforms fit the cache, and the short end."""
    size, whole = max(1, _RUN // chunk) * chunk, d // chunk * chunk
    # The last run takes what is too little for one more: products of very few rows are rounded otherwise.
    starts = range(0, max(1, whole // size) * size, size)
    return [(start, stop) for start, stop in pairwise([*starts, whole, d]) if start < stop]


def cosines(v: Tensor, chunk: int, inverse: bool = False) -> Tensor:
    """The DCT-II of every chunk of the flat float64 v, or its inverse; the last chunk may be shorter."""
    out = torch.empty_like(v)
    for start, stop in runs_of_chunks(len(v), chunk):
        rows = v[start:stop].view(-1, min(chunk, stop - start))
        out[start:stop] = _times(rows, inverse).view(-1)
    return out


def _times(rows: Tensor, inverse: bool) -> Tensor:
    matrix = _matrix(rows.shape[1]).to(rows.device)
    return rows @ (matrix if inverse else matrix.t())


@dataclass(frozen=True)
class Cosine(Inner):
    """The inner vector holds the coefficients of the orthonormal DCT-II of each `chunk` of entries."""

    tag: ClassVar[int] = 11
    chunk: int

    def _back(self, y: Tensor) -> Tensor:
        return cosines(y, self.chunk, inverse=True)

    @property
    def _longest(self) -> int:
        return self.chunk

    def sizes(self, dtype: torch.dtype) -> Sizes:
        account = Counter(super().sizes(dtype))
        account["header"] += varint_nbytes(self.chunk)
        return dict(account)

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        return [pack_varint(self.chunk), *super().parts(dtype)]

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Cosine:
        """The inverse of `write`."""
        chunk = reader.varint()
        reader.book("header")
        if not 1 <= chunk <= LONGEST_CHUNK:
            raise WireError(f"chunks of {chunk} entries in the message; 1 to {LONGEST_CHUNK} are allowed")
        return cls(*read_inner(reader, n, dtype), chunk)
