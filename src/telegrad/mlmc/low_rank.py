"""The low-rank ladder: level l adds the next singular directions of a matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.matrix import ReadsMatrix
from telegrad.kernels.statistics.magnitudes import largest_magnitude
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels
from telegrad.spec import register
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import LowRank
from telegrad.wire.values.low_rank import as_matrix

__all__ = ["LowRankLadder"]


@register("low_rank", example="low_rank(rank=1)", source="B1; Wang et al., NeurIPS 2018 (ATOMO, spectral)")
@dataclass(frozen=True)
class LowRankLadder(ReadsMatrix, Ladder):
    """The low-rank ladder: the next singular directions of the tensor as a matrix on each level.

    r_l = Σ σ_i u_i w_iᵀ over the l-th `rank` singular directions of the tensor as a matrix, largest first.

    Residuals are orthogonal; one direction a level and adaptive probabilities give p ∝ σ and omega(v) = (Σσ)² / Σσ² −
    1, at most min(rows, columns) − 1. `sampling=poisson` over them is ATOMO. A level is sent as its factors. Rows and
    columns are those of `powersgd`: the first dimension against all others, ⌊√d⌋ rows for a flat tensor, or `rows`.
    The whole decomposition is computed, from the products of the shorter side's rows or columns with each other.

    Args:
        rank: singular directions of a level.
        rows: of the matrix; none: by the tensor's shape.

    References:
        Wang et al., "ATOMO: Communication-efficient Learning via Atomic Sparsification", 2018,
            https://arxiv.org/abs/1806.04090
    """

    rank: int = 1
    rows: int | None = None

    values = "fp32"

    def omega(self, d: int, adaptive: bool) -> float:
        rows = self._rows(d)
        return max(0, -(-min(rows, -(-d // rows)) // self.rank) - 1)

    def levels(self, v: Tensor) -> Levels:
        return _Directions(v, self._rows(len(v)), self.rank)


class _Directions(Levels):
    def __init__(self, v: Tensor, rows: int, rank: int) -> None:
        # By a power of two, so that the decomposition of a scaled vector is the scaled one.
        scale = 2.0 ** math.frexp(largest_magnitude(v))[1]
        wide = rows <= -(-len(v) // rows)

        def across() -> Tensor:
            matrix = as_matrix(v.to(torch.float64, copy=True).div_(scale), rows)
            return matrix.t() if wide else matrix

        # The singular vectors of the shorter side; the other factor is the matrix times them. As they are orthonormal,
        # all levels make up the matrix, however near two singular values lie. Made twice, so as not to be held between.
        basis = torch.linalg.eigh(_products(across())).eigenvectors.flip(1)
        image = (across() @ basis).mul_(scale)
        self.left, self.right = (basis, image) if wide else (image, basis)
        self.d, self.sigma = len(v), torch.linalg.vector_norm(image, dim=0)
        self.rank = min(rank, len(self.sigma))
        # Where zeros fill the matrix up, what is sent lacks the entries of the residuals that lie there.
        self.orthogonal = len(self.left) * len(self.right) == len(v)
        self.count = -(-len(self.sigma) // self.rank)

    def norms(self) -> Tensor:
        if self.orthogonal:
            norms = [torch.linalg.vector_norm(part) for part in self.sigma.split(self.rank)]
        else:  # one level after the other: all of them together are many times the vector
            levels = range(1, self.count + 1)
            norms = [torch.linalg.vector_norm(self.residual(level)[0].values.numbers()) for level in levels]
        return torch.stack(norms).cpu()

    def costs(self) -> Tensor:
        directions = torch.tensor([len(part) for part in self.sigma.split(self.rank)], dtype=torch.float64)
        return MESSAGE_OVERHEAD + 32 * (len(self.left) + len(self.right)) * directions

    def fixed_probabilities(self) -> Tensor:
        return torch.full((self.count,), 1 / self.count, dtype=torch.float64)

    def base(self) -> tuple[Term, ...]:
        return ()

    def residual(self, level: int) -> tuple[Term, ...]:
        these = slice((level - 1) * self.rank, level * self.rank)
        return (Term(All(self.d), LowRank(self.d, self.left[:, these], self.right[:, these])),)


def _products(matrix: Tensor) -> Tensor:
    """Of the columns with each other."""
    return matrix.t() @ matrix
