"""mix-(k, k′): the largest entries and, unscaled, some random others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Encoded
from telegrad.compressors.two_counts import TwoCounts
from telegrad.kernels.random_numbers.subsets import subset
from telegrad.kernels.selection.by_rank import largest_entries
from telegrad.random import Key
from telegrad.spec import register, resolve_amount
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats

__all__ = ["Mix"]


@register("mix", example="mix(k=0.01, k2=0.01)", source="A19; Condat, Yi, Richtárik, NeurIPS 2022 (EF-BV)")
@dataclass(frozen=True)
class Mix(TwoCounts):
    """mix-(k, k′): the k entries of largest magnitude and k′ uniformly random others.

    C(x) keeps the k entries of largest magnitude and k′ = `k2` uniformly random others, none of them scaled.

    Biased; contractive with alpha = (k + k′)/d in expectation. Relative bias eta = (d−k−k′)/√((d−k) d) and variance
    about the mean spread = k′ (d−k−k′)/((d−k) d) (A19.1); all three are attained at equal magnitudes. `k2=none` is
    k′ = k. Where fewer than k + k′ entries are there, all are sent.

    Args:
        k: entries of largest magnitude: a count, or a fraction of d.
        k2: k′, random others: a count, or a fraction of d; none is k.

    References:
        Condat, Yi and Richtárik, "EF-BV: A Unified Theory of Error Feedback and Variance Reduction Mechanisms for
            Biased and Unbiased Compression in Distributed Optimization", 2022, https://arxiv.org/abs/2205.04180
    """

    def _counts(self, d: int) -> tuple[int, int]:
        k = resolve_amount(self, "k", d)
        return k, min(d - k, resolve_amount(self, "k" if self.k2 is None else "k2", d))

    def alpha(self, d: int) -> float:
        return sum(self._counts(d)) / d

    def eta(self, d: int) -> float:
        k, more = self._counts(d)
        return (d - k - more) / math.sqrt((d - k) * d) if k < d else 0.0

    def spread(self, d: int) -> float:
        k, more = self._counts(d)
        return more * (d - k - more) / ((d - k) * d) if k < d else 0.0

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d = len(v)
        k, more = self._counts(d)
        top, drawn = largest_entries(v, k).sort().values, subset(key.fold(role="subset"), d - k, more).to(v.device)
        # Number r of the entries that are not of the top lies behind all of these that have up to r others before them.
        others = drawn + torch.searchsorted(top - torch.arange(k, device=v.device), drawn, right=True)
        index = torch.cat([top, others]).sort().values
        return Encoded((Term(IndexSet(d, index), Floats(v[index])),))

    def _mean(self, v: Tensor) -> Tensor:
        k, more = self._counts(len(v))
        top = largest_entries(v, k)
        mean = v.double() * (more / max(1, len(v) - k))
        mean[top] = v[top].double()
        return mean

    def _variance(self, v: Tensor) -> float:
        k, more = self._counts(len(v))
        rest = v.double().clone()
        rest[largest_entries(v, k)] = 0.0
        return float(rest.square().sum()) * (1 - more / max(1, len(v) - k))
