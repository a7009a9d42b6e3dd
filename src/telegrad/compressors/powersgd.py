"""PowerSGD: one power iteration finds a subspace that holds much of a matrix; the matrix is projected onto it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Contractive, Encoded
from telegrad.compressors.matrix import Matrix, ReadsMatrix
from telegrad.random import Key
from telegrad.spec import register
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import Floats, LowRank

__all__ = ["PowerSGD", "power_iteration"]

_DRAWS = 32
_DEPENDENT = 1e-10

Factors = tuple[Tensor, Tensor]


@register("powersgd", example="powersgd(rank=2)", source="A18; Vogels, Karimireddy, Jaggi, NeurIPS 2019")
@dataclass(frozen=True)
class PowerSGD(ReadsMatrix, Contractive):
    """PowerSGD: a low-rank approximation of the tensor as a matrix by one step of subspace iteration.

    C(G) = P Pᵀ G, the columns of P an orthonormal basis of those of G Q, Q normal from the key; P and Pᵀ G are sent.

    G is the tensor as a matrix: the first dimension against all others; a flat tensor has ⌊√d⌋ rows, filled up with
    zeros at the end; `rows` sets another number. Where the two factors would be no shorter, G goes as it is. The side
    that Q multiplies is the shorter one, of n = min(rows, columns).

    Biased and contractive with alpha = rank/n over the draw of Q: P Pᵀ keeps G U, U an orthonormal basis of the columns
    of Q, so ‖Pᵀ G‖² >= ‖G U‖², whose mean is (rank/n) ‖G‖². Equal singular values attain it. Without the draw nothing
    is kept for sure. ‖G − C(G)‖² = ‖G‖² − ‖Pᵀ G‖² (A18.1); its mean has no closed form, and `variance` averages it over
    32 fixed draws of Q.

    `start=last`, the warm start: Q spans the `rank` dominant directions of the last estimate, which all ranks have, and
    for one worker just those of its own last message, as in the source. There, ranks share P by an all-reduce; here,
    each sends its own factors, and the estimate is a mean of M such products. A random Q is tried besides, and what
    keeps more is sent: alone, the last directions would keep nothing of a G orthogonal to them (alpha = 0). So alpha
    stays, and no message is worse than with `start=random`, for two iterations instead of one, and a third for the
    estimate. Before the first estimate, after one of zero, and for a compressor by itself, the start is random.

    Args:
        rank: columns of P.
        rows: of the matrix; none: by the tensor's shape.
        start: random, or last: from the last estimate.

    References:
        Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization",
            2019, https://arxiv.org/abs/1905.13727
    """

    rank: int = 2
    rows: int | None = None
    start: Literal["random", "last"] = "random"

    random = True
    exact = False

    @property
    def looks_at(self) -> frozenset[str]:
        return super().looks_at | ({"last"} if self.start == "last" else set())

    def _shorter(self, d: int) -> int:
        rows = self._rows(d)
        return min(rows, -(-d // rows))

    def alpha(self, d: int) -> float:
        return min(1.0, self.rank / max(1, self._shorter(d)))

    def _matrix(self, v: Tensor) -> Matrix | None:
        """v as a matrix; None where its factors are no shorter."""
        matrix = Matrix.of(v, self._rows(len(v)))
        return matrix if min(self.rank, *matrix.shape) * sum(matrix.shape) < len(v) else None

    def _drawn(self, matrix: Matrix, key: Key) -> Tensor:
        short = min(matrix.shape)
        return key.fold(role="start").normal(short * self.rank).view(short, self.rank)

    def _factors(self, matrix: Matrix, key: Key) -> Factors:
        starts = self._starts(self._drawn(matrix, key))
        return max((power_iteration(matrix, start) for start in starts), key=_kept)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d, matrix = len(v), self._matrix(v)
        if matrix is None:
            return Encoded((Term(All(d), Floats(v.clone())),))
        left, right = self._factors(matrix, key)
        if left.numel() == 0:
            return Encoded(())
        return Encoded((Term(All(d), LowRank(d, left, right).rounded(v.dtype, None)),))

    def _draws(self, matrix: Matrix) -> Iterator[Factors]:
        return (self._factors(matrix, Key().fold(draw=draw)) for draw in range(_DRAWS))

    def _mean(self, v: Tensor) -> Tensor:
        matrix = self._matrix(v)
        if matrix is None:
            return v.double()
        return torch.stack([LowRank(len(v), *factors).numbers() for factors in self._draws(matrix)]).mean(0)

    def _variance(self, v: Tensor) -> float:
        matrix = self._matrix(v)
        if matrix is None:
            return 0.0
        estimates = (LowRank(len(v), *factors).numbers() for factors in self._draws(matrix))
        return sum(float((v.double() - estimate).square().sum()) for estimate in estimates) / _DRAWS

    def _starts(self, drawn: Tensor) -> tuple[Tensor, ...]:
        """What to start from, of shape (n, rank): the random `drawn`, and the last directions where there are any."""
        last = self.context.last_estimate if self.start == "last" else None
        if last is None:
            return (drawn,)
        known = last.once(("directions", self.rank, self._rows(len(last.vector))), self._directions)
        if known.numel() == 0 or len(known) != len(drawn):
            return (drawn,)
        return drawn, torch.cat([known.to(drawn), drawn], 1)[:, : self.rank]

    def _directions(self, last: Tensor) -> Tensor:
        """The last estimate's dominant directions on the shorter side, as its own power iteration finds them."""
        matrix = self._matrix(last)
        if matrix is None:
            return torch.zeros(0, 0, dtype=torch.float64)
        return _fellow(power_iteration(matrix, self._drawn(matrix, Key())))


def power_iteration(matrix: Matrix, q: Tensor) -> Factors:
    """The factors (left, right) of the projection of `matrix` onto the columns that it makes of q; float64, on the CPU.

    q: shape (n, rank), n the shorter side of the matrix. Of a matrix with rows no fewer than columns, left is
    orthonormal and right = matrixᵀ left; else the other way round. Either has a column for each independent one of q's,
    so possibly fewer. The orthonormal factor's fellow is what the source calls Q, and the warm start of the next call.
    """
    tall = matrix.shape[0] >= matrix.shape[1]
    there, back = (matrix.times, matrix.transposed_times) if tall else (matrix.transposed_times, matrix.times)
    basis = _orthonormal(there(q.t().contiguous().cpu().numpy()))
    found, fellow = (torch.from_numpy(factor.T.copy()) for factor in (basis, back(basis)))
    return (found, fellow) if tall else (fellow, found)


def _fellow(factors: Factors) -> Tensor:
    """The orthonormal factor's fellow, shape (n, rank)."""
    left, right = factors
    return right if len(left) >= len(right) else left


def _kept(factors: Factors) -> float:
    """‖Pᵀ G‖²."""
    return float(np.square(_fellow(factors).cpu().numpy()).sum())


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    """Orthonormal rows that span those given (Gram-Schmidt, twice), without those that depend on the ones before."""
    found: list[np.ndarray] = []
    for row in rows:
        before, rest = math.sqrt(float(np.square(row).sum())), row
        for _ in range(2):
            for other in found:
                rest = rest - float((rest * other).sum()) * other
        norm = math.sqrt(float(np.square(rest).sum()))
        if norm > _DEPENDENT * before:
            found.append(rest / norm)
    return np.array(found).reshape(len(found), rows.shape[1])
