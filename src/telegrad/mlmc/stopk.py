"""The s-Top-k ladder: level l adds the l-th block of s coordinates in the order of decreasing magnitude."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.coding import Coding
from telegrad.kernels.coding.scatter import taken
from telegrad.kernels.reference import descending_order
from telegrad.kernels.selection.by_rank import SMALL, MagnitudeHistogram
from telegrad.kernels.selection.drawn_block import drawn_block
from telegrad.kernels.selection.rank_blocks import block_norms, counted_blocks, sorted_blocks
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels
from telegrad.random import Key
from telegrad.spec import Amount, check_amount, check_that, register, resolve_amount
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats

__all__ = ["SegmentedTopKLadder"]

_LARGE_ENOUGH = 2.0**-80
"""Below this the largest entry is not far from float32's subnormal numbers, whose bins tell little: then, a sort."""

_RESERVE = 2.0**-20
"""The share of the probabilities that all blocks share evenly, so that none is drawn never."""

VALUE_BITS = {"fp32": 32, "bf16": 16, "log": 2, "sign": 1}


@register("stopk", example="stopk(s=0.01)", source="A3, B2, B10; Zukerman, Hamoud, Levy, ICML 2025, section 3.2")
@dataclass(frozen=True)
class SegmentedTopKLadder(Ladder):
    """The segmented Top-k ladder: the next s entries in the order of decreasing magnitude on each level.

    r_l = v on block S_l = the ((l−1)s+1)-th to the (ls)-th largest entries, L = ⌈d/s⌉; residuals are orthogonal.

    omega(v) = (Σ_l ‖v_S_l‖)² / ‖v‖² − 1 <= ⌈d/s⌉ − 1 (B2.1, B2.5). With `values=sign` entry j of the block is kept with
    probability |v_j| / m_l and sent as a sign, m_l = max over the block: ‖v_S_l‖² becomes m_l ‖v_S_l‖₁ (B2.7). Blocks
    are cut in the order of magnitudes, equal ones in the order of their indices; the last may be shorter. From 4096
    entries on (but for float64) nothing is sorted: the norms come from a histogram, and only the drawn block is found,
    exactly. Any p that the sender knows leaves the estimate unbiased (B13.1); this one costs at most 2^−10 of its
    second moment.

    Args:
        s: entries of a block: a count, or a fraction of d.
        values: how they are coded (B2.7): fp32 in full, sign, and others.
        growth: each block is so many times as long as the one before: logarithmically many levels, which want
            `probabilities=cost` (B10.2: at growth 1.2 the price is 1 %, with adaptive ones far more).

    References:
        Zukerman, Hamoud and Levy, "Beyond Communication Overhead: A Multilevel Monte Carlo Approach for Mitigating
            Compression Bias in Distributed Learning", 2025, https://arxiv.org/abs/2507.05508
    """

    s: Amount
    values: Coding = "fp32"
    growth: float = 1.0

    def __post_init__(self) -> None:
        check_amount(self, "s")
        check_that(1.0 <= self.growth <= 16.0, self, "growth", "a factor from 1 to 16 is allowed")

    def omega(self, d: int, adaptive: bool) -> float:
        s = resolve_amount(self, "s", d)
        counted = 1 + 2.0**-10 if adaptive and d >= SMALL else 1.0
        # A block's m ‖v‖₁ exceeds ‖v‖² by at most (√s + 1) / 2 (A10.2).
        if self.growth == 1.0:
            return -(-d // s) * ((s**0.5 + 1) / 2 if self.values == "sign" else 1.0) * counted - 1
        sizes = block_sizes(d, s, self.growth)
        inflation = (float(sizes.max()) ** 0.5 + 1) / 2 if self.values == "sign" else 1.0
        if adaptive:
            return len(sizes) * inflation * counted - 1
        # Σ Δ_l² / p_l is linear in the Δ_l², so the worst case lies in the block that is drawn least for its energy.
        return inflation / float(fixed_law(sizes).min()) - 1

    def omega_of(self, d: int, adaptive: bool, base: int, draws: float | None) -> float | None:
        """With n draws: Σ Δ_l² (1/π_l − 1) over the L − b blocks beyond the base, at most ((L − b)/n − 1) times their
        energy, which is at most (L − b)/L of the whole since blocks do not grow; attained at equal magnitudes.
        """
        s = resolve_amount(self, "s", d)
        if self.growth != 1.0 or self.values == "sign" or not (adaptive or d % s == 0):
            return None
        count = -(-d // s)
        beyond = max(0, count - base)
        counted = 1.0
        if adaptive and d >= SMALL:
            # Without replacement a block that should be certain may have its norm, and so its π, 1/32 too low.
            counted = 1 + 2.0**-10 if draws is None else 1 + 1 / 15
        return max(0.0, beyond / (draws or 1.0) * counted - 1) * beyond / count

    def on_gpu(self, v: Tensor) -> bool:
        return v.numel() >= SMALL and v.dtype != torch.float64

    def checks(self, v: Tensor) -> bool:
        return self.on_gpu(v)

    def drawn(self, v: Tensor, key: Key) -> tuple[int, Term] | None:
        d = v.numel()
        found = drawn_block(v, _edges(self, d), _power(self.values), _RESERVE, _LARGE_ENOUGH, key)
        if found is None:
            return None
        level, index, values = found
        return level, Term(IndexSet(d, torch.from_numpy(index)), Floats(torch.from_numpy(values)))

    def levels(self, v: Tensor) -> Levels:
        edges = _edges(self, v.numel())
        if self.on_gpu(v):
            histogram = MagnitudeHistogram(v)
            if histogram.top() >= _LARGE_ENOUGH:
                return _CountedBlocks(v, edges, self.values, histogram)
        return _SortedBlocks(v, edges, self.values)


@lru_cache(maxsize=256)
def _edges(ladder: SegmentedTopKLadder, d: int) -> np.ndarray:
    return block_edges(d, resolve_amount(ladder, "s", d), ladder.growth)


def block_sizes(d: int, s: int, growth: float) -> Tensor:
    """The sizes of the blocks, int64: ⌊s · growth^l⌋ for l = 0, 1, …, and what is left."""
    return torch.from_numpy(np.diff(block_edges(d, s, growth)))


@lru_cache(maxsize=256)
def block_edges(d: int, s: int, growth: float) -> np.ndarray:
    """The ranks between blocks, int64, shape (L + 1,): from 0 to d. Shared by all who ask: not to be written to."""
    if growth == 1.0:
        return np.append(np.arange(0, d, s), d)
    edges, size = [0], float(s)
    while edges[-1] < d:
        edges.append(min(d, edges[-1] + int(size)))
        size = min(size * growth, float(d))
    return np.array(edges)


def fixed_law(sizes: Tensor) -> Tensor:
    """p ∝ √size: the minimax law for blocks of equal entries, uniform where s divides d."""
    roots = sizes.double().sqrt()
    return roots / roots.sum()


def _power(values: Coding) -> int:
    """Of the magnitudes that a block's second moment sums: with signs it is m ‖v_S‖₁ = m² Σ |v_j| / m (B2.7)."""
    return 1 if values == "sign" else 2


class _Blocks(Levels):
    """Levels from the largest entry m_l of each block and Σ (|v_j| / m_l)^power over it: sums relative to their largest
    term, so that tiny blocks do not vanish.
    """

    orthogonal = True

    def __init__(self, v: Tensor, edges: np.ndarray, values: Coding) -> None:
        self.v, self.edges, self.values = v, edges, values

    @abstractmethod
    def _sums(self, power: int) -> tuple[np.ndarray, np.ndarray]:
        """(m_l, Σ (|v_j| / m_l)^power) of each block."""

    @abstractmethod
    def _indices(self, start: int, stop: int) -> Tensor:
        """The indices of the entries of ranks start … stop − 1, increasing."""

    def norms(self) -> Tensor:
        largest, sums = self._sums(_power(self.values))
        return torch.from_numpy(largest * np.sqrt(sums))

    def costs(self) -> Tensor:
        sizes = np.diff(self.edges).astype(np.float64)
        entries = self._sums(1)[1] if self.values == "sign" else sizes
        index = np.log2(self.edges[-1] / sizes) + 1.44
        return torch.from_numpy(MESSAGE_OVERHEAD + entries * (np.maximum(index, 1.0) + VALUE_BITS[self.values]))

    def fixed_probabilities(self) -> Tensor:
        return fixed_law(torch.from_numpy(np.diff(self.edges)))

    def base(self) -> tuple[Term, ...]:
        return ()

    def residual(self, level: int) -> tuple[Term, ...]:
        index = self._indices(int(self.edges[level - 1]), int(self.edges[level]))
        return (Term(IndexSet(self.v.numel(), index), Floats(taken(self.v, index))),)


class _SortedBlocks(_Blocks):
    """Exact norms, from a sort."""

    def __init__(self, v: Tensor, edges: np.ndarray, values: Coding) -> None:
        super().__init__(v, edges, values)
        self.order = descending_order(v)

    def _sums(self, power: int) -> tuple[np.ndarray, np.ndarray]:
        return sorted_blocks(plain(self.v[self.order].abs().double()), self.edges, power)

    def _indices(self, start: int, stop: int) -> Tensor:
        return torch.from_numpy(np.sort(plain(self.order[start:stop])))


class _CountedBlocks(_Blocks):
    """Norms from a histogram, as if the entries were spread evenly between the ends of their bins: every magnitude is
    right to 1/32, so norms are, and MLMC's second moment is at most 1 + 2^−10 times the least (B13.2).
    """

    def __init__(self, v: Tensor, edges: np.ndarray, values: Coding, histogram: MagnitudeHistogram) -> None:
        super().__init__(v, edges, values)
        self.histogram = histogram

    def _sums(self, power: int) -> tuple[np.ndarray, np.ndarray]:
        bins = self.histogram
        return counted_blocks(bins.counts, bins.smallest, bins.largest, self.edges, power)

    def norms(self) -> Tensor:
        # None is zero, as far as the histogram knows: the bin of zero holds the smallest subnormal numbers too.
        bins = self.histogram
        of_bins = bins.counts, bins.smallest, bins.largest
        return torch.from_numpy(block_norms(*of_bins, self.edges, _power(self.values), _RESERVE))

    def second_moments(self) -> Tensor:
        return _SortedBlocks(self.v, self.edges, self.values).norms().square()

    def _indices(self, start: int, stop: int) -> Tensor:
        return self.histogram.ranked(start, stop)
