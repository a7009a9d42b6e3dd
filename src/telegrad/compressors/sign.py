"""Scaled sign: one bit an entry, and one scale or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from telegrad.compressors.base import Contractive, Encoded
from telegrad.kernels.statistics.magnitudes import sum_of_magnitudes
from telegrad.random import Key
from telegrad.spec import register
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import Grid, Table, Values

__all__ = ["Sign", "signs_of"]


@register("sign", example="sign", source="A13; Seide et al. 2014; Bernstein et al. 2018; Karimireddy et al. 2019")
@dataclass(frozen=True)
class Sign(Contractive):
    """Scaled sign: the sign of every entry, times the mean magnitude.

    C(x) = (‖x‖₁ / d) sign(x) with sign(0) = +1: contractive, error ‖x‖² − ‖x‖₁²/d, alpha = 1/d (A13.1).

    `scale=two_means`: entries of at least 0 become their mean, those below 0 theirs; the error is the sum of squares
    within both groups, never above the former (A13.2). One non-zero entry attains alpha either way. Scales are rounded
    to float32 (float64 for float64 input).

    Args:
        scale: mean, or two_means: one for each sign.

    References:
        Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", 2018,
            https://arxiv.org/abs/1802.04434
        Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", 2019,
            https://arxiv.org/abs/1901.09847
        Seide et al., "1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed Training of
            Speech DNNs", 2014,
            https://doi.org/10.21437/Interspeech.2014-274
    """

    scale: Literal["mean", "two_means"] = "mean"

    random = False

    def alpha(self, d: int) -> float:
        return 1 / d

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        values: Values
        if self.scale == "mean":
            values = Grid(signs_of(v), sum_of_magnitudes(v) / len(v))
        else:
            values = Table((v >= 0).to(torch.uint8), _two_means(v))
        return Encoded((Term(All(len(v)), values.rounded(v.dtype, None)),))

    def _variance(self, v: Tensor) -> float:
        x = v.double()
        if self.scale == "mean":
            return float(x.square().sum() - x.abs().sum() ** 2 / len(x))
        return float((x - _two_means(v)[(x >= 0).to(torch.int64)]).square().sum())


def signs_of(v: Tensor) -> Tensor:
    """sign(v) with sign(0) = +1, int8."""
    return (v < 0).to(torch.int8).mul_(-2).add_(1)


def _two_means(v: Tensor) -> Tensor:
    """The means of the entries below 0 and of the others; 0 for an empty group. float64."""
    below, above = v[v < 0], v[v >= 0]
    means = [-sum_of_magnitudes(below) / max(1, len(below)), sum_of_magnitudes(above) / max(1, len(above))]
    return torch.tensor(means, dtype=torch.float64)
