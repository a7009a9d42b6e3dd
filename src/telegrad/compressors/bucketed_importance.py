"""Importance sparsification without a sort: one probability for all entries of a binary exponent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.compressors.coding import coding_omega, coding_variance, nonzero_term
from telegrad.kernels.coding.scatter import taken
from telegrad.kernels.histograms.by_exponent import drawn_by_exponent, energies, exponent_of
from telegrad.random import Key
from telegrad.spec import Amount, check_amount, register, resolve_amount
from telegrad.wire.positions import IndexSet

__all__ = ["BucketedImportance"]


@register("bucketed_importance", example="bucketed_importance(k=0.01)", source="A6; after Wangni et al. 2018")
@dataclass(frozen=True)
class BucketedImportance(Unbiased):
    """Importance sampling by binary exponents: entries of like magnitude share a probability, and nothing is sorted.

    Keep entry j with probability π_b, b its binary exponent, and send x_j / π_b; Σ π_j = k expected entries (A6).

    π_b = min(1, λ √(e_b / n_b)) for the n_b entries of energy e_b in a bucket: the best that depend on the bucket only.
    Unbiased; variance Σ e_b (1/π_b − 1) (A6.1), at most (d/k − 1) ‖x‖², attained by equal magnitudes; its second moment
    is at most 9/8 of that of `importance`. One pass and a histogram, no sort.

    Args:
        k: expected number of entries sent: a count, or a fraction of d.
        values: the coding of x_j / π_b (B2.7).

    References:
        Wangni et al., "Gradient Sparsification for Communication-Efficient Distributed Optimization", 2018,
            https://arxiv.org/abs/1710.09854
    """

    k: Amount
    values: Literal["fp32", "bf16", "log"] = "fp32"

    def __post_init__(self) -> None:
        check_amount(self, "k")

    def omega(self, d: int) -> float:
        coding = coding_omega(d, self.values) if self.values != "fp32" else 0.0
        return d / resolve_amount(self, "k", d) * (1 + coding) - 1

    def _law(self, v: Tensor) -> tuple[int, np.ndarray]:
        """The largest exponent, and the probability of the entries of it and of every lower one."""
        k = resolve_amount(self, "k", len(v))
        top, count, energy = energies(v)
        if int(count.sum()) <= k:
            return top, np.ones(len(count))
        # With r buckets certain, λ = (k − their entries) / Σ of the others' n √(e/n); the first r that leaves the next
        # bucket a probability of at most 1 is right (A5.2).
        size = np.ldexp(np.sqrt(energy / np.maximum(count, 1)), top - np.arange(len(count)))
        left = k - (count.cumsum() - count)
        with np.errstate(over="ignore", invalid="ignore"):  # where hardly anything is left, the factor is infinite
            factor = left / (count * size)[::-1].cumsum()[::-1]
            fits = (left > 0) & (factor * size <= 1) & (count > 0)
        return top, np.minimum(factor[np.flatnonzero(fits)[0]] * size, 1.0)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        top, probability = self._law(v)
        which = drawn_by_exponent(v, top, probability, key)
        kept = taken(v, which).double()
        sent = kept / torch.from_numpy(probability[top - exponent_of(kept)])
        return Encoded((nonzero_term(IndexSet(len(v), which), sent, self.values, v.dtype, key),))

    def _probabilities(self, v: Tensor) -> Tensor:
        """π of every entry, zero for zeros."""
        top, probability = self._law(v)
        place = np.clip(top - exponent_of(v), 0, len(probability) - 1)
        return torch.where(v.cpu() != 0, torch.from_numpy(probability[place]), 0.0)

    def _variance(self, v: Tensor) -> float:
        x, probability = v.double(), self._probabilities(v)
        x, probability = x[probability > 0], probability[probability > 0]
        coding = sum(
            float(p) * coding_variance(x[probability == p] / p, self.values, v.dtype) for p in probability.unique()
        )
        return float((x.square() * (1 - probability) / probability).sum()) + coding
