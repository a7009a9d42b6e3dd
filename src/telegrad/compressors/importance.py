"""Optimal importance sparsification, with sign-coded values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.kernels.reference import rounding_variance, sorted_descending
from telegrad.random import Key
from telegrad.spec import Amount, check_amount, register, resolve_amount
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats, Grid

__all__ = ["Importance", "optimal_threshold"]


def optimal_threshold(magnitude: Tensor, k: float) -> float:
    """The t with Σ_j min(1, magnitude_j / t) = k (A5.2), for float64 magnitudes with more than k non-zero ones; 0
    otherwise.

    Entries of at least t are certain; with r of them, t = Σ_{j>r} |x|_(j) / (k − r) over the sorted rest.
    """
    ordered = sorted_descending(magnitude)
    if k >= len(ordered) or float(ordered[int(k)]) == 0.0:
        return 0.0
    most = math.ceil(k)
    # tail[r] = sum of all but the r largest; summed from the small end, which is also the accurate one.
    tail = ordered.flip(0).cumsum(0).flip(0)[:most]
    thresholds = tail / (k - torch.arange(most, dtype=torch.float64, device=ordered.device))
    saturated = int((ordered[:most] <= thresholds).nonzero()[0])
    return float(thresholds[saturated])


@register("importance", example="importance(k=0.01)", source="A5; Wangni et al. 2018")
@dataclass(frozen=True)
class Importance(Compressor):
    """Keep entry j independently with probability π_j = min(1, |x_j| / t), send x_j / π_j; Σ π_j = k (A5.2).

    Unbiased, with the least variance at k expected entries: Σ x_j² (1 − π_j) / π_j, at most (d/k − 1) ‖x‖². An entry
    that is not certain decodes to ±t, so `values=sign` (the default) sends its place and sign only, and t once (A5.5);
    certain entries are sent in full. t is rounded up to what is sent, and the probabilities follow it, so nothing is
    biased.
    `values=fp32` sends every kept value in full: the same estimate at a higher price. `k`: a count, or a fraction of d.

    `design=systematic` draws the uncertain entries by a comb through the sums of π in random order, instead of one by
    one (A5.6): their number is then fixed, up to one by the rounding of t; π, and so the variance, stays (A5.1).
    """

    k: Amount
    values: Literal["sign", "fp32"] = "sign"
    design: Literal["bernoulli", "systematic"] = "bernoulli"

    unbiased = True
    random = True

    def __post_init__(self) -> None:
        check_amount(self, "k")

    def omega(self, d: int) -> float:
        # The threshold's rounding up to float32 adds at most 2^−22 d/k; the bound is attained at equal magnitudes.
        k = resolve_amount(self, "k", d)
        return (d / k) * (1 + 2.0**-22) - 1 if k < d else 0.0

    def alpha(self, d: int) -> float:
        return max(0.0, 1 - self.omega(d))

    def _threshold(self, v: Tensor) -> float:
        t = optimal_threshold(v.double().abs(), resolve_amount(self, "k", len(v)))
        if v.dtype == torch.float64 or t == 0.0:
            return t
        nearest = torch.tensor(t, dtype=torch.float32)
        above = float(nearest if float(nearest) >= t else torch.nextafter(nearest, torch.tensor(math.inf)))
        # A smaller threshold than the budget asks for keeps more entries, and the estimate finite.
        return min(above, torch.finfo(v.dtype).max)

    def _drawn(self, magnitude: Tensor, threshold: float, key: Key) -> Tensor:
        """Which entries are drawn, each with probability magnitude / threshold < 1."""
        d = len(magnitude)
        if self.design == "bernoulli" or not bool(magnitude.any()):
            return key.uniform(d, device=magnitude.device) * threshold < magnitude
        order = key.fold(role="order").permutation(d).to(magnitude.device)
        ticks = ((magnitude[order] / threshold).cumsum(0) - float(key.fold(role="comb").uniform(1))).ceil()
        drawn = torch.zeros(d, dtype=torch.bool, device=magnitude.device)
        drawn[order] = ticks > torch.nn.functional.pad(ticks[:-1], (1, 0))
        return drawn

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d, threshold = len(v), self._threshold(v)
        magnitude = v.double().abs()
        certain = (magnitude >= threshold) & (magnitude > 0)
        drawn = self._drawn(torch.where(certain, 0.0, magnitude), threshold, key)
        if self.values == "fp32":
            which = (certain | drawn).nonzero().squeeze(1)
            sent = torch.where(certain, v.double(), v.double().sign() * threshold)[which]
            return Encoded((Term(IndexSet(d, which), Floats(sent).rounded(v.dtype, key.fold(role="values"))),))
        head, tail = certain.nonzero().squeeze(1), drawn.nonzero().squeeze(1)
        signs = v[tail].sign().to(torch.int64)
        return Encoded((Term(IndexSet(d, head), Floats(v[head])), Term(IndexSet(d, tail), Grid(signs, threshold))))

    def _variance(self, v: Tensor) -> float:
        x, threshold = v.double().abs(), self._threshold(v)
        rest = x[x < threshold]
        rounding = (
            float((rest / threshold * rounding_variance(torch.full_like(rest, threshold), v.dtype)).sum())
            if self.values == "fp32" and len(rest)
            else 0.0
        )
        return float((rest * (threshold - rest)).sum()) + rounding
