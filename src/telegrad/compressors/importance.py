"""Optimal importance sparsification, with sign-coded values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.kernels.coding.scatter import taken
from telegrad.kernels.random_numbers.subsets import permutation
from telegrad.kernels.random_numbers.uniforms import drawn_in_proportion
from telegrad.kernels.reference import rounding_variance, sorted_descending
from telegrad.kernels.selection.by_rank import SMALL, MagnitudeHistogram
from telegrad.kernels.selection.thresholds import UNKNOWN, short_threshold, threshold_from
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.random import Key
from telegrad.spec import Amount, check_amount, register, resolve_amount
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats, Grid, shortest_exact

__all__ = ["Importance", "counted_threshold", "optimal_threshold"]


def optimal_threshold(magnitude: Tensor, k: float, rest: float = 0.0) -> float:
    """The t with Σ_j min(1, magnitude_j / t) + rest / t = k (A5.2), for float64 magnitudes; 0 where at most k of them
    are not zero and there is no rest.

    Entries of at least t are certain; with r of them, t = (Σ_{j>r} |x|_(j) + rest) / (k − r) over the sorted others.
    `rest`: the sum of further entries, all known to lie below t.
    """
    ordered = sorted_descending(magnitude)
    if rest == 0.0 and (k >= len(ordered) or float(ordered[int(k)]) == 0.0):
        return 0.0
    ordered = torch.nn.functional.pad(ordered, (0, 1))  # the rest lies below them all
    most = min(math.ceil(k), len(ordered))
    # tail[r] = sum of all but the r largest; summed from the small end, which is also the accurate one.
    tail = ordered.flip(0).cumsum(0).flip(0)[:most] + rest
    thresholds = tail / (k - torch.arange(most, dtype=torch.float64, device=ordered.device))
    saturated = int((ordered[:most] <= thresholds).nonzero()[0])
    return float(thresholds[saturated])


def counted_threshold(v: Tensor, k: float) -> float:
    """`optimal_threshold(|v|, k)`, up to the rounding of its sums, without a sort or anything of the size of `v`: from
    the exact sums over the bins of a histogram, and the entries of the one bin that t lies in.
    """
    if (t := short_threshold(v, k)) != UNKNOWN:
        return t
    histogram = MagnitudeHistogram(v, with_sums=True)
    at, above, rest, total = histogram.threshold_bin(k)
    if at < 0:
        return 0.0
    t = threshold_from(k, above, rest, total, histogram.counts[at], histogram.largest[at])
    if t != UNKNOWN:
        return float(t)
    inside = taken(v, histogram.entries(at, at))
    return optimal_threshold(inside.double().abs(), k - above, rest)


def _counted(v: Tensor) -> bool:
    return v.numel() >= SMALL and v.dtype != torch.float64


@register("importance", example="importance(k=0.01)", source="A5; Wangni et al. 2018")
@dataclass(frozen=True)
class Importance(Unbiased):
    """Importance sampling: every entry is kept with a probability that grows with its magnitude, and scaled by it.

    Keep entry j independently with probability π_j = min(1, |x_j| / t), send x_j / π_j; Σ π_j = k (A5.2).

    Unbiased, with the least variance at k expected entries: Σ x_j² (1 − π_j) / π_j, at most (d/k − 1) ‖x‖². An entry up
    to t decodes to ±t, so `values=sign` (the default) sends its place and sign only, and t once (A5.5); larger ones are
    sent in full, or as a table where few of them are distinct. t is rounded up to what is sent, and the probabilities
    follow it, so nothing is biased. `values=fp32` sends every kept value in full: the same estimate at a higher price.

    `design=systematic` draws the uncertain entries by a comb through the sums of π in random order, instead of one by
    one (A5.6): their number is then fixed, up to one by the rounding of t; π, and so the variance, stays (A5.1).

    Args:
        k: a count, or a fraction of d.
        values: sign or fp32: how kept values are coded.
        design: bernoulli: entries are kept independently; systematic: their number is fixed.

    References:
        Wangni et al., "Gradient Sparsification for Communication-Efficient Distributed Optimization", 2018,
            https://arxiv.org/abs/1710.09854
    """

    k: Amount
    values: Literal["sign", "fp32"] = "sign"
    design: Literal["bernoulli", "systematic"] = "bernoulli"

    def __post_init__(self) -> None:
        check_amount(self, "k")

    def omega(self, d: int) -> float:
        # The threshold's rounding up to float32 adds at most 2^−22 d/k; the bound is attained at equal magnitudes.
        k = resolve_amount(self, "k", d)
        return (d / k) * (1 + 2.0**-22) - 1 if k < d else 0.0

    def on_gpu(self, v: Tensor) -> bool:
        return _counted(v) and self.design == "bernoulli"

    def checks(self, v: Tensor) -> bool:
        return _counted(v)

    def _threshold(self, v: Tensor) -> float:
        k = resolve_amount(self, "k", v.numel())
        t = counted_threshold(v, k) if _counted(v) else optimal_threshold(v.double().abs(), k)
        if v.dtype == torch.float64 or t == 0.0:
            return t
        top = torch.finfo(v.dtype).max
        if t >= top:
            return top
        nearest = np.float32(t)
        above = float(nearest if float(nearest) >= t else np.nextafter(nearest, np.float32(math.inf)))
        # A smaller threshold than the budget asks for keeps more entries, and the estimate finite.
        return min(above, top)

    def _kept(self, v: Tensor, threshold: float, key: Key) -> Tensor:
        """The indices of the entries that are sent, increasing: each with probability min(1, |v_j| / threshold)."""
        if self.design == "bernoulli":
            return drawn_in_proportion(v, threshold, key)
        magnitude = v.double().abs()
        certain = (magnitude >= threshold) & (magnitude > 0)
        uncertain = torch.where(certain, 0.0, magnitude)
        if bool(uncertain.any()):
            certain |= self._systematic(uncertain, threshold, key)
        return certain.nonzero().squeeze(1)

    def _systematic(self, magnitude: Tensor, threshold: float, key: Key) -> Tensor:
        """Which entries are drawn, each with probability magnitude / threshold < 1, ⌊Σ⌋ or ⌈Σ⌉ of them."""
        d = len(magnitude)
        order = permutation(key.fold(role="order"), d).to(magnitude.device)
        ticks = ((magnitude[order] / threshold).cumsum(0) - float(key.fold(role="comb").uniform(1))).ceil()
        drawn = torch.zeros(d, dtype=torch.bool, device=magnitude.device)
        drawn[order] = ticks > torch.nn.functional.pad(ticks[:-1], (1, 0))
        return drawn

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d, threshold = v.numel(), self._threshold(v)
        which = self._kept(v, threshold, key)
        value = plain(taken(v, which))
        certain = np.abs(value) > threshold  # one that equals it decodes to it
        if self.values == "fp32":
            sent = torch.from_numpy(np.where(certain, value, np.sign(value) * threshold))
            return Encoded((Term(IndexSet(d, which), Floats(sent).rounded(v.dtype, key.fold(role="values"))),))
        positions, signs = IndexSet(d, which), torch.from_numpy(np.sign(value).astype(np.int8))
        if not certain.any():
            return Encoded((Term(positions, Grid(signs, threshold)),))
        if certain.all():
            return Encoded((Term(positions, shortest_exact(torch.from_numpy(value).to(v.dtype))),))
        head, drawn = (torch.from_numpy(np.flatnonzero(those)) for those in (certain, ~certain))
        return Encoded(
            (
                Term(positions.keep(head), shortest_exact(torch.from_numpy(value[certain]).to(v.dtype))),
                Term(positions.keep(drawn), Grid(signs[drawn], threshold)),
            )
        )

    def _variance(self, v: Tensor) -> float:
        x, threshold = v.double().abs(), self._threshold(v)
        rest = x[x < threshold]
        rounding = (
            float((rest / threshold * rounding_variance(torch.full_like(rest, threshold), v.dtype)).sum())
            if self.values == "fp32" and len(rest)
            else 0.0
        )
        return float((rest * (threshold - rest)).sum()) + rounding
