"""Values in the cosine basis: an inner message of coefficients, chunk by chunk."""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.threads import in_blocks
from telegrad.wire.bits import Buffer, Reader, pack_varint, varint_nbytes
from telegrad.wire.values.base import Sizes
from telegrad.wire.values.rotated import Inner, read_inner

__all__ = ["LONGEST_CHUNK", "Cosine", "cosines", "cosines_of_rows", "in_runs"]

R = TypeVar("R")

LONGEST_CHUNK = 4096
_RUN = 1 << 14
_FEWEST_ROWS = 64
_SUMMED = 128
_KEPT_NBYTES = 1 << 28  # two of the largest matrices
_MOST_BASES = 4  # a message of ours has one


def _made(n: int) -> Tensor:
    """The orthonormal DCT-II: row k holds cos(π (2j + 1) k / 2n), times √(2/n), the first row times √(1/n)."""
    place = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / (2 * n) * place[:, None] * (2 * place + 1)) * math.sqrt(2 / n)
    matrix[0] = math.sqrt(1 / n)
    return matrix


_lock = threading.Lock()
_kept: OrderedDict[int, Tensor] = OrderedDict()


def _matrix(n: int) -> Tensor:
    """The matrix of n rows; those used last are kept, up to `_KEPT_NBYTES` of them."""
    with _lock:
        if n in _kept:
            _kept.move_to_end(n)
            return _kept[n]
    made = _made(n)
    with _lock:
        _kept[n] = made
        while sum(one.nbytes for one in _kept.values()) > _KEPT_NBYTES:
            _kept.popitem(last=False)
    return made


def in_runs(work: Callable[[int, int], R], d: int, chunk: int) -> list[R]:
    """[work(start, stop) for every run of whole chunks of d entries, and for the short end], side by side, in their
    order: runs are so short that what is made of them stays in the cache.
    """
    size, whole = max(_FEWEST_ROWS, _RUN // chunk) * chunk, d // chunk * chunk
    # The last run takes what is too little for one more: products of very few rows are rounded otherwise.
    even = max(1, whole // size) * size if whole else 0
    done = in_blocks(lambda start, stop: work(start, whole if stop == even else stop), even, size)
    return [*done, work(whole, d)] if whole < d else done


def cosines(v: Tensor, chunk: int, inverse: bool = False) -> Tensor:
    """The DCT-II of every chunk of the flat v, or its inverse, float64; the last chunk may be shorter."""
    out = torch.empty(len(v), dtype=torch.float64)

    def work(start: int, stop: int) -> None:
        out[start:stop] = cosines_of_rows(v[start:stop].view(-1, min(chunk, stop - start)), inverse).view(-1)

    in_runs(work, len(v), chunk)
    return out


def cosines_of_rows(rows: Tensor, inverse: bool = False) -> Tensor:
    """The DCT-II of every row, or its inverse, float64."""
    n, columns = rows.shape
    matrix = _matrix(columns) if inverse else _matrix(columns).t()
    rows = rows.double()
    if columns < _SUMMED:
        return rows @ matrix
    # Where a sum is longer, or a row alone, its last bits would depend on the number of threads.
    rows = rows.expand(max(2, n), columns)
    done = rows[:, :_SUMMED] @ matrix[:_SUMMED]
    for start in range(_SUMMED, columns, _SUMMED):
        done += rows[:, start : start + _SUMMED] @ matrix[start : start + _SUMMED]
    return done[:n]


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
        reader.bases |= {min(chunk, n)}
        if len(reader.bases) > _MOST_BASES:
            sizes = sorted(reader.bases)
            raise WireError(f"the message is in bases of {sizes} entries; up to {_MOST_BASES} are allowed")
        return cls(*read_inner(reader, n, dtype), chunk)
