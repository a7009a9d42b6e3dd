"""Values in the cosine basis: an inner message of coefficients, chunk by chunk."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.wire.bits import Reader, pack_varint, varint_nbytes
from telegrad.wire.values.base import Sizes
from telegrad.wire.values.rotated import Inner, read_inner

__all__ = ["LONGEST_CHUNK", "Cosine", "cosines"]

LONGEST_CHUNK = 4096


@lru_cache(16)
def _matrix(n: int) -> Tensor:
    """The orthonormal DCT-II: row k holds cos(π (2j + 1) k / 2n), times √(2/n), the first row times √(1/n)."""
    place = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / (2 * n) * place[:, None] * (2 * place + 1)) * math.sqrt(2 / n)
    matrix[0] = math.sqrt(1 / n)
    return matrix


def cosines(v: Tensor, chunk: int, inverse: bool = False) -> Tensor:
    """The DCT-II of every chunk of the flat float64 v, or its inverse; the last chunk may be shorter."""
    whole = len(v) // chunk * chunk
    parts = [v[:whole].view(-1, chunk), v[whole:].view(1, -1)]
    done = [_times(part, inverse) for part in parts if part.numel()]
    return torch.cat([part.reshape(-1) for part in done]) if done else v.clone()


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

    def write(self, dtype: torch.dtype) -> bytes:
        return pack_varint(self.chunk) + super().write(dtype)

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Cosine:
        """The inverse of `write`."""
        chunk = reader.varint()
        reader.book("header")
        if not 1 <= chunk <= LONGEST_CHUNK:
            raise WireError(f"chunks of {chunk} entries in the message; 1 to {LONGEST_CHUNK} are allowed")
        return cls(*read_inner(reader, n, dtype), chunk)
