"""comp-(k, k′): random ones of the largest entries."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Encoded
from telegrad.compressors.topk import TopK
from telegrad.compressors.two_counts import TwoCounts
from telegrad.kernels.random_numbers.subsets import subset
from telegrad.kernels.reference import rounding_variance
from telegrad.kernels.selection.by_rank import among_largest
from telegrad.random import Key
from telegrad.spec import register, resolve_amount
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats

__all__ = ["Comp"]


@register("comp", example="comp(k=0.01, k2=0.5)", source="A19; Condat, Yi, Richtárik, NeurIPS 2022 (EF-BV)")
@dataclass(frozen=True)
class Comp(TwoCounts):
    """comp-(k, k′): a uniformly random k-subset of the k′ entries of largest magnitude.

    C(x) = (k′/k) x_S, S a uniformly random k-subset of the k′ = `k2` entries of largest magnitude.

    Biased: its mean is Top-k′. Relative bias eta = √((d−k′)/d), attained at equal magnitudes; variance about the mean
    spread = (k′−k)/k, attained where k′ entries at most are non-zero (A19.2). Contractive only for k′ < 2k, with
    alpha = (k′/d)(2 − k′/k), attained at equal magnitudes; else `scaled(comp(…))` is. `k2=none` is k′ = 2k; k′ is k
    at least.

    Args:
        k: entries sent: a count, or a fraction of d.
        k2: k′, the entries of largest magnitude that they are drawn from; none is 2k.

    References:
        Condat, Yi and Richtárik, "EF-BV: A Unified Theory of Error Feedback and Variance Reduction Mechanisms for
            Biased and Unbiased Compression in Distributed Optimization", 2022, https://arxiv.org/abs/2205.04180
    """

    def _counts(self, d: int) -> tuple[int, int]:
        k = resolve_amount(self, "k", d)
        return k, min(d, 2 * k) if self.k2 is None else max(k, resolve_amount(self, "k2", d))

    def alpha(self, d: int) -> float:
        k, among = self._counts(d)
        return max(0.0, among / d * (2 - among / k))

    def eta(self, d: int) -> float:
        return math.sqrt(1 - self._counts(d)[1] / d)

    def spread(self, d: int) -> float:
        k, among = self._counts(d)
        return (among - k) / k

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        k, among = self._counts(len(v))
        index = among_largest(v, among, subset(key.fold(role="subset"), among, k))
        values = Floats(v[index].double() * (among / k)).rounded(v.dtype, key.fold(role="values"))
        return Encoded((Term(IndexSet(len(v), index), values),))

    def _mean(self, v: Tensor) -> Tensor:
        return TopK(self._counts(len(v))[1])._mean(v)

    def _variance(self, v: Tensor) -> float:
        k, among = self._counts(len(v))
        mean = self._mean(v)
        rounding = k / among * float(rounding_variance(mean * (among / k), v.dtype).sum())
        missing = float((v.double() - mean).square().sum())
        return missing + (among / k - 1) * float(mean.square().sum()) + rounding
