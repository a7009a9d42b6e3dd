"""Rand-k: a uniformly random k-subset, drawn from a seed so that no index is sent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.compressors.coding import Coding, coding_omega, coding_variance, nonzero_term
from telegrad.kernels.coding.scatter import taken_times
from telegrad.kernels.reference import sorted_descending
from telegrad.random import Key
from telegrad.spec import Amount, check_amount, register, resolve_amount
from telegrad.wire.positions import Subset

__all__ = ["RandK"]


@register("randk", example="randk(k=0.01)", source="A4; Konečný et al. 2016; Wangni et al. 2018")
@dataclass(frozen=True)
class RandK(Compressor):
    """Rand-k: a uniformly random k-subset of the entries, scaled to be unbiased.

    C(x) = (d/k) x_S on a uniformly random k-subset S, zero elsewhere: unbiased, omega = d/k − 1, for every x (A4.1).

    The subset's 64-bit seed is sent instead of indices. `scaled=false` leaves the factor out: then C is biased and
    contractive with alpha = k/d in expectation (A4.2), as error feedback wants it.

    Args:
        k: a count, or a fraction of d.
        values: the coding of entries (B2.7).
        scaled: whether what is kept is multiplied by d/k.

    References:
        Konečný et al., "Federated Learning: Strategies for Improving Communication Efficiency", 2016,
            https://arxiv.org/abs/1610.05492
        Wangni et al., "Gradient Sparsification for Communication-Efficient Distributed Optimization", 2018,
            https://arxiv.org/abs/1710.09854
    """

    k: Amount
    values: Coding = "fp32"
    scaled: bool = True

    random = True

    def __post_init__(self) -> None:
        check_amount(self, "k")

    @property
    def unbiased(self) -> bool:
        return self.scaled

    def omega(self, d: int) -> float:
        k = resolve_amount(self, "k", d)
        if not self.scaled:
            return math.inf
        return d / k * (1 + (coding_omega(k, self.values) if self.values != "fp32" else 0.0)) - 1

    def alpha(self, d: int) -> float:
        k = resolve_amount(self, "k", d)
        if self.scaled:
            return super().alpha(d)
        return max(0.0, k / d * (1 - (coding_omega(k, self.values) if self.values != "fp32" else 0.0)))

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d = v.numel()
        k = resolve_amount(self, "k", d)
        positions = Subset(d, k, key.fold(role="subset").to_int())
        chosen = taken_times(v, positions.indices(), d / k if self.scaled else 1.0)
        return Encoded((nonzero_term(positions, chosen, self.values, v.dtype, key),))

    def _mean(self, v: Tensor) -> Tensor:
        return v.double() * (1.0 if self.scaled else resolve_amount(self, "k", len(v)) / len(v))

    def _variance(self, v: Tensor) -> float:
        d = len(v)
        k = resolve_amount(self, "k", d)
        x = v.double() * (d / k if self.scaled else 1.0)
        # scaled: (k/d)(1 − k/d) of the scaled energy is variance; unscaled: the energy left out, in expectation.
        missing = float(x.square().sum()) * (1 - k / d) * (k / d if self.scaled else 1.0)
        if self.values == "sign":
            return missing + _expected_max_times_sum(x.abs(), k) - k / d * float(x.square().sum())
        return missing + k / d * coding_variance(x, self.values, v.dtype)


def _expected_max_times_sum(magnitude: Tensor, k: int) -> float:
    """E[max_S · Σ_S] over uniform k-subsets S, for entries of the given magnitudes.

    The j-th largest is the maximum with probability P_j = C(d−j, k−1) / C(d, k); the other k − 1 are uniform below it.
    """
    d = len(magnitude)
    ordered = sorted_descending(magnitude)
    j = torch.arange(d - k + 1, dtype=torch.float64, device=magnitude.device)
    is_maximum = k / d * torch.cumprod(torch.cat([torch.ones(1, device=j.device), 1 - (k - 1) / (d - 1 - j[:-1])]), 0)
    below = (ordered.flip(0).cumsum(0).flip(0) - ordered)[: d - k + 1]
    top = ordered[: d - k + 1]
    return float((is_maximum * top * (top + (k - 1) / (d - 1 - j).clamp(min=1) * below)).sum())
