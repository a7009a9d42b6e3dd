"""Subsampling: a random part of the entries goes through another compressor."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded, Unbiased
from telegrad.compressors.composing import representable
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import Subset

__all__ = ["Subsample"]

_DRAWS = 32


@register("subsample", example="subsample(qsgd(levels=4), fraction=0.3)", source="0.8; A21; Konečný et al. 2016")
@dataclass(frozen=True)
class Subsample(Unbiased):
    """Subsampling: an unbiased compressor applied to a uniformly random subset of the entries.

    C(x) = A((d/k) x_S) on a uniformly random k-subset S, k = `fraction` · d, and zero elsewhere, A = `inner`
    unbiased.

    Unbiased, with omega = (1 + omega_A(k)) d/k − 1 (0.8). It takes a compressor below the fewest bits that it can spend
    itself. A meets a vector of k entries, the subset travels as a seed, and A's places are told within it. Unlike
    `compose(A, randk(k=…))`, which is the same for entry-wise A, A never sees the d − k zeros.

    `variance` is (d/k − 1) ‖x‖² plus A's expected one over all subsets, where there are 64 at most; else that is
    averaged over 32 fixed ones. What rounding (d/k) x_S to x's dtype adds is left out: below 2^−16 of the second moment
    for 16-bit tensors, 2^−46 for others.

    Args:
        inner: A, unbiased.
        fraction: k/d, above 0 up to 1.

    References:
        Konečný et al., "Federated Learning: Strategies for Improving Communication Efficiency", 2016,
            https://arxiv.org/abs/1610.05492
    """

    inner: Compressor
    fraction: float

    def __post_init__(self) -> None:
        check_that(self.inner.unbiased, self, "inner", "an unbiased compressor is allowed")
        check_that(0 < self.fraction <= 1, self, "fraction", "a share of the entries in (0, 1] is allowed")

    @property
    def exact(self) -> bool:
        return self.inner.exact

    def _size(self, d: int) -> int:
        return min(d, max(1, round(self.fraction * d)))

    def omega(self, d: int) -> float:
        k = self._size(d)
        return (1 + self.inner.omega(k)) * d / k - 1

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d = len(v)
        places = Subset(d, self._size(d), key.fold(role="subset").to_int())
        index = places.indices()

        def chosen(start: int, stop: int) -> Tensor:
            return v[index[start:stop]].double() * (d / places.n)

        scaled = representable(chosen, places.n, v.dtype, key.fold(role="scale"), self)
        inner = self.inner.encoded(scaled, key.fold(role="inner"))
        return Encoded(tuple(_within(places, term) for term in inner.terms), inner.level)

    def _variance(self, v: Tensor) -> float:
        d, x = len(v), v.double()
        k = self._size(d)
        subsets: Iterable[Tensor] = (Key().fold(draw=draw).subset(d, k) for draw in range(_DRAWS))
        if math.comb(d, k) <= 2 * _DRAWS:
            subsets = map(torch.tensor, itertools.combinations(range(d), k))
        chosen = [x[subset] * (d / k) for subset in subsets]
        # E‖(d/k) x_S‖² is known, so only the ratio of var_A to it is left to the draws: never above omega_A.
        energy, total = math.fsum(float(part.square().sum()) for part in chosen), float(x.square().sum())
        of_inner = math.fsum(self.inner.variance(part) for part in chosen)
        ratio = of_inner / energy if energy > 0 else self.inner.variance(x) / total
        return (d / k - 1 + ratio * d / k) * total


def _within(places: Subset, term: Term) -> Term:
    index = term.positions.indices()
    return Term(places if index is None else places.keep(index), term.values)
