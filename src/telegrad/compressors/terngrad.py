"""TernGrad: every entry becomes −m, 0 or m."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.compressors.dithering import dithered, dithering_omega, dithering_variance
from telegrad.kernels.statistics.magnitudes import largest_magnitude
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term

__all__ = ["TernGrad"]


@register("terngrad", example="terngrad", source="A10; Wen et al. 2017")
@dataclass(frozen=True)
class TernGrad(Compressor):
    """TernGrad: stochastic rounding of every entry to minus the largest magnitude, zero, or plus it.

    C(x)_j = m sign(x_j) Bernoulli(|x_j| / m), m = ‖x‖_∞: unbiased, variance m ‖x‖₁ − ‖x‖² (A10.1).

    omega = (√d − 1)/2, attained by (1, a, …, a) with a = 1/(1 + √d) (A10.2). The original paper clips the entries
    first, at 2.5 standard deviations: `clip=2.5` clips at so many times the root mean square of x. That is a bias no
    later step removes (the mean of C(x) is the clipped x), and the result has no contraction constant.

    Args:
        clip: times the root mean square that entries are clipped at; none: not at all.

    References:
        Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning", 2017,
            https://arxiv.org/abs/1705.07878
    """

    clip: float | None = None

    random = True

    def __post_init__(self) -> None:
        check_that(self.clip is None or self.clip > 0, self, "clip", "a positive number is allowed")

    @property
    def unbiased(self) -> bool:
        return self.clip is None

    def omega(self, d: int) -> float:
        return dithering_omega(d, 1, math.inf) if self.unbiased else math.inf

    def _clipped(self, v: Tensor) -> Tensor:
        x = v.double()
        if self.clip is None:
            return x
        limit = self.clip * float(x.square().mean().sqrt())
        return x.clamp(-limit, limit)

    def on_gpu(self, v: Tensor) -> bool:
        return self.clip is None

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        x = v if self.clip is None else self._clipped(v)
        term = dithered(x, largest_magnitude(x), 1, key)
        return Encoded((Term(term.positions, term.values.rounded(v.dtype, key.fold(role="scale"))),))

    def _mean(self, v: Tensor) -> Tensor:
        return self._clipped(v)

    def _variance(self, v: Tensor) -> float:
        x = self._clipped(v)
        return float((x - v.double()).square().sum()) + dithering_variance(x, float(x.abs().max()))
