"""s-Top-k: Top-k in blocks of s coordinates of the sorted order, the level system of the MLMC paper."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Encoded
from telegrad.compressors.coding import Coding
from telegrad.compressors.topk import KeepsLargest, TopK
from telegrad.random import Key
from telegrad.spec import Amount, check_amount, check_that, register, resolve_amount

__all__ = ["SegmentedTopK"]


@register("stopk", example="stopk(s=0.01, keep=1)", source="A3; Zukerman, Hamoud, Levy, ICML 2025, section 3.2")
@dataclass(frozen=True)
class SegmentedTopK(KeepsLargest):
    """Segmented Top-k: the leading blocks of s entries in the order of decreasing magnitude.

    C(x) keeps the first `keep` blocks of `s` coordinates in the order of decreasing magnitude: Top-(s · keep).

    Contractive with alpha = min(1, s · keep / d), attained where all |x_j| are equal (A3). As a compressor it is Top-k;
    what the blocks are for is `mlmc(stopk(s=…))`.

    Args:
        s: entries of a block: a count, or a fraction of d.
        keep: blocks kept.
        values: how kept values are coded (B2.7).

    References:
        Zukerman, Hamoud and Levy, "Beyond Communication Overhead: A Multilevel Monte Carlo Approach for Mitigating
            Compression Bias in Distributed Learning", 2025, https://arxiv.org/abs/2507.05508
    """

    s: Amount
    keep: int = 1
    values: Coding = "fp32"

    def __post_init__(self) -> None:
        check_amount(self, "s")
        check_that(self.keep >= 1, self, "keep", "a number of blocks from 1 is allowed")

    def _topk(self, d: int) -> TopK:
        return TopK(min(d, resolve_amount(self, "s", d) * self.keep), self.values)

    def alpha(self, d: int) -> float:
        return self._topk(d).alpha(d)

    def on_gpu(self, v: Tensor) -> bool:
        return self._topk(len(v)).on_gpu(v)

    def checks(self, v: Tensor) -> bool:
        return self._topk(v.numel()).checks(v)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        return self._topk(len(v))._encode(v, key)

    def _mean(self, v: Tensor) -> Tensor:
        return self._topk(len(v))._mean(v)

    def _variance(self, v: Tensor) -> float:
        return self._topk(len(v))._variance(v)
