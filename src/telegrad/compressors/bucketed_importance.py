"""Importance sparsification without a sort: one probability for all entries of a binary exponent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.compressors.coding import coding_omega, coding_variance, nonzero_term
from telegrad.kernels.reference import binary_exponent, power_of_two
from telegrad.random import Key
from telegrad.spec import Amount, check_amount, register, resolve_amount
from telegrad.wire.positions import IndexSet

__all__ = ["BucketedImportance"]


@register("bucketed_importance", example="bucketed_importance(k=0.01)", source="A6; after Wangni et al. 2018")
@dataclass(frozen=True)
class BucketedImportance(Compressor):
    """Keep entry j with probability π_b, b its binary exponent, and send x_j / π_b; Σ π_j = k expected entries (A6).

    π_b = min(1, λ √(e_b / n_b)) for the n_b entries of energy e_b in a bucket: the best that depend on the bucket only.
    Unbiased; variance Σ e_b (1/π_b − 1) (A6.1), at most (d/k − 1) ‖x‖², attained by equal magnitudes; its second moment
    is at most 9/8 of that of `importance`. One pass and a histogram, no sort. `values`: the coding of x_j / π_b (B2.7).
    """

    k: Amount
    values: Literal["fp32", "bf16", "log"] = "fp32"

    unbiased = True
    random = True

    def __post_init__(self) -> None:
        check_amount(self, "k")

    def omega(self, d: int) -> float:
        coding = coding_omega(d, self.values) if self.values != "fp32" else 0.0
        return d / resolve_amount(self, "k", d) * (1 + coding) - 1

    def alpha(self, d: int) -> float:
        return max(0.0, 1 - self.omega(d))

    def _probabilities(self, x: Tensor) -> Tensor:
        """π of every entry, zero for zeros."""
        k, present = resolve_amount(self, "k", len(x)), x != 0
        if int(present.sum()) <= k:
            return present.double()
        # From the largest exponent down. Mantissas instead of entries: no square overflows or vanishes.
        exponent = binary_exponent(x).to(torch.int64).clamp(min=-1022)
        top = int(exponent[present].max())
        bucket, mantissa = top - exponent, x / power_of_two(exponent)
        count = torch.bincount(bucket[present])
        energy = torch.bincount(bucket[present], mantissa[present].square())
        size = power_of_two(top - torch.arange(len(count), device=x.device)) * (energy / count.clamp(min=1)).sqrt()
        # With r buckets certain, λ = (k − their entries) / Σ of the others' n √(e/n); the first r that leaves the next
        # bucket a probability of at most 1 is right (A5.2).
        left = k - (count.cumsum(0) - count)
        factor = left / (count * size).flip(0).cumsum(0).flip(0)
        fits = (left > 0) & (factor * size <= 1) & (count > 0)
        chosen = factor[int(fits.nonzero()[0])]
        return torch.where(present, (chosen * size).clamp(max=1.0)[bucket.clamp(0, len(count) - 1)], 0.0)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        x = v.double()
        probability = self._probabilities(x)
        which = (key.uniform(len(x), device=x.device) < probability).nonzero().squeeze(1)
        sent = x[which] / probability[which]
        return Encoded((nonzero_term(IndexSet(len(x), which), sent, self.values, v.dtype, key),))

    def _variance(self, v: Tensor) -> float:
        x = v.double()
        probability = self._probabilities(x)
        x, probability = x[probability > 0], probability[probability > 0]
        coding = sum(
            float(p) * coding_variance(x[probability == p] / p, self.values, v.dtype) for p in probability.unique()
        )
        return float((x.square() * (1 - probability) / probability).sum()) + coding
