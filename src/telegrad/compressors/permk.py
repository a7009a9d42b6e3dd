"""PermK: the workers deal the entries out among themselves, by a permutation that all of them share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.kernels.coding.scatter import taken_times
from telegrad.kernels.quantising.narrowing import narrowed
from telegrad.kernels.reference import rounding_variance
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import Share
from telegrad.wire.values import Floats

__all__ = ["PermK"]

_PIECE = 1 << 14  # entries that are float64 at a time


@register("permk", example="permk(workers=4)", source="A20; Szlendak, Tyurin, Richtárik, ICLR 2022")
@dataclass(frozen=True)
class PermK(Unbiased):
    """PermK: the workers share out the entries among themselves by a common random permutation.

    Worker i of n = `workers` (by default, as many as there are) sends m x on its share of the d entries, m = min(n, d),
    and zero elsewhere.

    Each worker's C is unbiased with omega = m − 1, for every x. Together they do better: for d >= n the shares divide
    the entries up, and E‖mean of C_i(a_i) − mean a_i‖² = mean ‖a_i‖² − ‖mean a_i‖² (A20.1, A = B = 1 with equality);
    for n > d an entry is sent by n/d workers, and the right-hand side is times (d−1)/(n−1) where d divides n (A20.2).
    Equal inputs give no error at all. Where d and n do not divide each other, who has one entry (one sender) more is
    random.

    All workers use one compressor: the context tells the rank (0 where it does not) and, without `workers`, how many
    there are; by itself, `encode` takes the rank that its key was folded with. The shared permutation comes from the
    key without its rank. Its seed is sent, no indices.

    Args:
        workers: n, the number of workers that share out the entries.

    References:
        Szlendak, Tyurin and Richtárik, "Permutation Compressors for Provably Faster Distributed Nonconvex
            Optimization", 2022, https://arxiv.org/abs/2110.03300
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        check_that(self.workers is None or self.workers >= 1, self, "workers", "a number of workers from 1 is allowed")

    @property
    def looks_at(self) -> frozenset[str]:
        return frozenset({"rank"} if self.workers else {"rank", "workers"})

    @property
    def _place(self) -> tuple[int, int]:
        return self.context.place(self.workers, self)

    def _parts(self, d: int) -> int:
        return min(self._place[1], d)

    def omega(self, d: int) -> float:
        return self._parts(d) - 1.0

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d, (rank, workers), shared = len(v), self._place, self.context.shared(key)
        # The shares differ by an entry, or the entries by a sender, at most: who has more must be random, too.
        place = int(shared.fold(role="workers").permutation(workers)[rank])
        parts = self._parts(d)
        positions = Share(d, parts, place % parts, shared.fold(role="entries").to_int())
        index, own, chosen = positions.narrow_indices(), key.fold(role="values"), v.new_empty(positions.n)
        for start in range(0, len(index), _PIECE):
            here = slice(start, start + _PIECE)
            chosen[here] = narrowed(taken_times(v, index[here], parts), v.dtype, own, start)
        return Encoded((Term(positions, Floats(chosen)),))

    def _variance(self, v: Tensor) -> float:
        parts = self._parts(len(v))
        x = v.double()
        rounding = float(rounding_variance(x * parts, v.dtype).sum()) / parts
        return (parts - 1) * float(x.square().sum()) + rounding
