"""Scaling: a compressor times a number, which makes it contractive."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Compressor, Contractive, Encoded
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term

__all__ = ["Scaled"]


@register("scaled", example="scaled(randk(k=0.1))", source="0.7; Condat, Yi, Richtárik, NeurIPS 2022 (EF-BV)")
@dataclass(frozen=True)
class Scaled(Contractive):
    """A scaled compressor: another one times a factor up to one, as error feedback wants it.

    λ A(x), with `by` = λ in (0, 1], or the best one, λ* = min(1, (1−η) / ((1−η)² + spread)), where by=none (0.7).

    Relative bias 1 − λ + λη, spread λ² times A's; alpha is 1 less the sum of the bias squared and the spread. For an
    unbiased A: λ* = alpha = 1/(1 + omega), attained where A attains omega. What λ makes of A's values is rounded to
    what a message can hold (stochastically where A is random), which `variance` leaves out: below 2^−16 of ‖x‖² for
    16-bit tensors, 2^−46 for others.

    Args:
        inner: A, any compressor with a known relative bias.
        by: λ in (0, 1]; none: the best.

    References:
        Condat, Yi and Richtárik, "EF-BV: A Unified Theory of Error Feedback and Variance Reduction Mechanisms for
            Biased and Unbiased Compression in Distributed Optimization", 2022, https://arxiv.org/abs/2205.04180
    """

    inner: Compressor
    by: float | None = None

    def __post_init__(self) -> None:
        check_that(self.by is None or 0 < self.by <= 1, self, "by", "a number in (0, 1] is allowed")

    @property
    def exact(self) -> bool:
        return self.inner.exact

    @property
    def random(self) -> bool:
        return self.inner.random

    def factor(self, d: int) -> float:
        """λ for vectors of d entries; 1 where A says nothing of its bias."""
        if self.by is not None:
            return self.by
        eta, spread = self.inner.eta(d), self.inner.spread(d)
        return min(1.0, (1 - eta) / ((1 - eta) ** 2 + spread)) if eta < 1 and spread < math.inf else 1.0

    def eta(self, d: int) -> float:
        factor = self.factor(d)
        return 1 - factor + factor * self.inner.eta(d)

    def spread(self, d: int) -> float:
        return self.factor(d) ** 2 * self.inner.spread(d)

    def alpha(self, d: int) -> float:
        factor, alpha = self.factor(d), self.inner.alpha(d)
        # The second bound is the triangle inequality: E‖λC − x‖² <= (λ √(1 − alpha) + 1 − λ)² ‖x‖².
        direct = (factor * math.sqrt(1 - alpha) + 1 - factor) ** 2 if alpha > 0 else 1.0
        return max(0.0, 1 - self.eta(d) ** 2 - self.spread(d), 1 - direct)

    def on_gpu(self, v: Tensor) -> bool:
        return self.inner.on_gpu(v)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        inner, factor = self.inner.encoded(v, key), self.factor(len(v))
        rounding = key.fold(role="factor") if self.random else None
        terms = [
            Term(term.positions, term.values.scaled(factor).rounded(v.dtype, rounding and rounding.fold(term=number)))
            for number, term in enumerate(inner.terms)
        ]
        return Encoded(tuple(terms) if factor != 1 else inner.terms, inner.level)

    def _mean(self, v: Tensor) -> Tensor:
        return self.inner._mean(v) * self.factor(len(v))

    def _variance(self, v: Tensor) -> float:
        x, mean, factor = v.double(), self.inner._mean(v), self.factor(len(v))
        about_mean = self.inner.variance(v) - float((mean - x).square().sum()) if self.random else 0.0
        return factor**2 * max(0.0, about_mean) + float((factor * mean - x).square().sum())
