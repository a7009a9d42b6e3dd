"""What compressors and ladders of low rank share: how a tensor is read as a matrix, and multiplied as one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from telegrad.context import Contextual
from telegrad.kernels.threads import in_blocks
from telegrad.spec import check_that

__all__ = ["Matrix", "ReadsMatrix"]

_TILE = 16384  # entries: fewer than torch shares out over threads of its own
_WIDTH = 128  # columns of a tile, more where there are few rows


class ReadsMatrix(Contextual):
    """Reads a tensor as a matrix of `rows` rows: its first dimension against all others, ⌊√d⌋ rows of a flat one."""

    rank: int
    rows: int | None

    def __post_init__(self) -> None:
        check_that(self.rank >= 1, self, "rank", "a number from 1 is allowed")
        check_that(self.rows is None or self.rows >= 1, self, "rows", "a number from 1 is allowed")

    @property
    def looks_at(self) -> frozenset[str]:
        return frozenset({"shape"} if self.rows is None else ())

    def _rows(self, d: int) -> int:
        shape = self.context.shape
        rows = self.rows or (shape[0] if len(shape) > 1 else 0)
        return max(1, min(d, rows or math.isqrt(d)))


@dataclass(frozen=True)
class Matrix:
    """A matrix as blocks of its rows, of any float dtype. Nothing of it is copied but, tile by tile, to float64; the
    order of every sum is that of the tiles, whatever the number of threads.
    """

    blocks: tuple[Tensor, ...]

    @classmethod
    def of(cls, v: Tensor, rows: int) -> Matrix:
        """`as_matrix(v, rows)`, of which only the rows that zeros fill up are made."""
        columns = -(-len(v) // rows)
        whole = len(v) // max(1, columns)
        body = v[: whole * columns].view(whole, columns)
        if whole == rows:
            return cls((body,))
        rest = v.new_zeros(rows - whole, columns)
        rest.view(-1)[: len(v) - whole * columns] = v[whole * columns :]
        return cls((body, rest))

    @property
    def shape(self) -> tuple[int, int]:
        return sum(map(len, self.blocks)), self.blocks[0].shape[1]

    def times(self, x: np.ndarray) -> np.ndarray:
        """The matrix times each row of x, which has a number for every column; float64, shape (len(x), rows)."""
        return np.concatenate([_product(block, x) for block in self.blocks], axis=1)

    def transposed_times(self, x: np.ndarray) -> np.ndarray:
        """The transposed matrix times each row of x, a number for every row; float64, shape (len(x), columns)."""
        out, first = np.zeros((len(x), self.shape[1])), 0
        for block in self.blocks:
            out += _product(block.t(), x[:, first : first + len(block)])
            first += len(block)
        return out


def _product(block: Tensor, x: np.ndarray) -> np.ndarray:
    rows, columns = block.shape
    width, out = min(columns, max(_WIDTH, _TILE // rows)), np.zeros((len(x), rows))

    def work(start: int, stop: int) -> None:
        here = slice(start // columns, stop // columns)
        for low in range(0, columns, width):
            tile = block[here, low : low + width].double().cpu().numpy()
            # Not a matrix product, whose last bits depend on the machine's library.
            out[:, here] += np.einsum("ij,kj->ki", tile, x[:, low : low + width])

    in_blocks(work, rows * columns, max(1, _TILE // width) * columns)
    return out
