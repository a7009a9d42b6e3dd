"""Top-k: the k entries of largest magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Contractive, Encoded
from telegrad.compressors.coding import Coding, coding_omega, coding_variance, nonzero_term
from telegrad.kernels.coding.scatter import taken
from telegrad.kernels.selection.by_rank import SMALL, largest_entries
from telegrad.random import Key
from telegrad.spec import Amount, check_amount, register, resolve_amount
from telegrad.wire.positions import IndexSet

__all__ = ["KeepsLargest", "TopK"]


class KeepsLargest(Contractive):
    """One that keeps entries as they are, but for how `values` codes them: random only with a random coding."""

    values: Coding

    @property
    def random(self) -> bool:
        return self.values != "fp32"

    @property
    def projects(self) -> bool:
        return not self.random


@register("topk", example="topk(k=0.01)", source="A2; Aji and Heafield 2017; Stich et al. 2018")
@dataclass(frozen=True)
class TopK(KeepsLargest):
    """C(x) keeps the k entries of largest magnitude and zeroes the rest; ties go to the lowest indices.

    Contractive with alpha = k/d, attained where all |x_j| are equal (A2.1).

    Args:
        k: a count, or a fraction of d.
        values: how the kept entries are coded (B2.7); a random coding of relative variance w lowers alpha to (k/d)(1 −
            w).

    References:
        Aji and Heafield, "Sparse Communication for Distributed Gradient Descent", 2017,
            https://arxiv.org/abs/1704.05021
        Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", 2018, https://arxiv.org/abs/1809.07599
    """

    k: Amount
    values: Coding = "fp32"

    def __post_init__(self) -> None:
        check_amount(self, "k")

    def alpha(self, d: int) -> float:
        k = resolve_amount(self, "k", d)
        return max(0.0, k / d * (1 - (coding_omega(k, self.values) if self.random else 0.0)))

    def on_gpu(self, v: Tensor) -> bool:
        return v.numel() >= SMALL

    def checks(self, v: Tensor) -> bool:
        d = v.numel()
        return d >= SMALL and v.dtype != torch.float64 and resolve_amount(self, "k", d) < d

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d = v.numel()
        index = largest_entries(v, resolve_amount(self, "k", d))
        kept = taken(v, index) if self.values == "fp32" else taken(v, index).double()
        return Encoded((nonzero_term(IndexSet(d, index), kept, self.values, v.dtype, key),))

    def _mean(self, v: Tensor) -> Tensor:
        index = largest_entries(v, resolve_amount(self, "k", len(v)))
        return torch.zeros(len(v), dtype=torch.float64, device=v.device).index_copy(0, index, v[index].double())

    def _variance(self, v: Tensor) -> float:
        index = largest_entries(v, resolve_amount(self, "k", len(v)))
        rest = v.double().clone()
        kept = rest[index]
        rest[index] = 0.0
        return float(rest.square().sum()) + coding_variance(kept, self.values, v.dtype)
