"""The s-Top-k ladder: level l adds the l-th block of s coordinates in the order of decreasing magnitude."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.coding import Coding
from telegrad.kernels.magnitudes import plain
from telegrad.kernels.reference import descending_order
from telegrad.kernels.scatter import taken
from telegrad.kernels.selection import SMALL, MagnitudeHistogram
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels
from telegrad.spec import Amount, check_amount, check_that, register, resolve_amount
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats

__all__ = ["SegmentedTopKLadder"]

_LARGE_ENOUGH = 2.0**-80
"""Below this the largest entry is not far from float32's subnormal numbers, whose bins tell little: then, a sort."""

_RESERVE = 2.0**-20
"""The share of the probabilities that all blocks share evenly, so that none is drawn never."""

_VALUE_BITS = {"fp32": 32, "bf16": 16, "log": 2, "sign": 1}


@register("stopk", example="stopk(s=0.01)", source="A3, B2, B10; Zukerman, Hamoud, Levy, ICML 2025, section 3.2")
@dataclass(frozen=True)
class SegmentedTopKLadder(Ladder):
    """r_l = v on block S_l = the ((l−1)s+1)-th to the (ls)-th largest entries, L = ⌈d/s⌉; residuals are orthogonal.

    omega(v) = (Σ_l ‖v_S_l‖)² / ‖v‖² − 1 <= ⌈d/s⌉ − 1 (B2.1, B2.5). With `values=sign` entry j of the block is kept with
    probability |v_j| / m_l and sent as a sign, m_l = max over the block: ‖v_S_l‖² becomes m_l ‖v_S_l‖₁ (B2.7).
    Blocks are cut in the order of magnitudes, equal ones in the order of their indices; the last may be shorter. From
    4096 entries on (but for float64) nothing is sorted: the norms come from a histogram, and only the drawn block is
    found, exactly. Any p that the sender knows leaves the estimate unbiased (B13.1); this one costs at most 2^−10 of
    its second moment.
    `growth`: each block is so many times as long as the one before: logarithmically many levels, which want
    `probabilities=cost` (B10.2: at growth 1.2 the price is 1 %, with adaptive ones far more).
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

    def on_gpu(self, v: Tensor) -> bool:
        return len(v) >= SMALL and v.dtype != torch.float64

    def levels(self, v: Tensor) -> Levels:
        sizes = block_sizes(len(v), resolve_amount(self, "s", len(v)), self.growth)
        if self.on_gpu(v):
            histogram = MagnitudeHistogram(v)
            if float(histogram.largest[np.flatnonzero(histogram.counts)[-1]]) >= _LARGE_ENOUGH:
                return _CountedBlocks(v, sizes, self.values, histogram)
        return _SortedBlocks(v, sizes, self.values)


def block_sizes(d: int, s: int, growth: float) -> Tensor:
    """The sizes of the blocks, int64: ⌊s · growth^l⌋ for l = 0, 1, …, and what is left."""
    if growth == 1.0:
        equal = torch.full((-(-d // s),), s)
        equal[-1] = (d - 1) % s + 1
        return equal
    sizes, left, size = [], d, float(s)
    while left:
        sizes.append(min(left, int(size)))
        left -= sizes[-1]
        size = min(size * growth, float(d))
    return torch.tensor(sizes)


def fixed_law(sizes: Tensor) -> Tensor:
    """p ∝ √size: the minimax law for blocks of equal entries, uniform where s divides d."""
    roots = sizes.double().sqrt()
    return roots / roots.sum()


class _Blocks(Levels):
    """Levels from the largest entry m_l of each block and Σ (|v_j| / m_l)^power over it: sums relative to their largest
    term, so that tiny blocks do not vanish.
    """

    orthogonal = True

    def __init__(self, v: Tensor, sizes: Tensor, values: Coding) -> None:
        self.v, self.sizes, self.values = v, sizes, values
        self.stops = sizes.cumsum(0)

    largest: Tensor

    @abstractmethod
    def _relative_sums(self, power: int) -> Tensor: ...

    @abstractmethod
    def _indices(self, start: int, stop: int) -> Tensor:
        """The indices of the entries of ranks start … stop − 1, increasing."""

    def norms(self) -> Tensor:
        # With signs the second moment is m ‖v_S‖₁ = m² Σ |v_j| / m (B2.7).
        sums = self._relative_sums(1 if self.values == "sign" else 2)
        return self.largest * torch.from_numpy(np.sqrt(sums.numpy()))

    def costs(self) -> Tensor:
        entries = self._relative_sums(1) if self.values == "sign" else self.sizes.double()
        index = torch.log2(len(self.v) / self.sizes.double()) + 1.44
        return MESSAGE_OVERHEAD + entries * (index.clamp(min=1.0) + _VALUE_BITS[self.values])

    def fixed_probabilities(self) -> Tensor:
        return fixed_law(self.sizes)

    def base(self) -> tuple[Term, ...]:
        return ()

    def residual(self, level: int) -> tuple[Term, ...]:
        stop, size = int(self.stops[level - 1]), int(self.sizes[level - 1])
        index = self._indices(stop - size, stop)
        return (Term(IndexSet(len(self.v), index), Floats(taken(self.v, index))),)


class _SortedBlocks(_Blocks):
    """Exact norms, from a sort."""

    def __init__(self, v: Tensor, sizes: Tensor, values: Coding) -> None:
        super().__init__(v, sizes, values)
        self.order = descending_order(v)
        self.magnitude = v[self.order].abs().double().cpu()
        self.largest = self.magnitude[self.stops - sizes]

    def _relative_sums(self, power: int) -> Tensor:
        scale = torch.where(self.largest > 0, self.largest, 1.0).repeat_interleave(self.sizes)
        relative = (self.magnitude / scale).pow(power).numpy()
        return torch.from_numpy(np.add.reduceat(relative, (self.stops - self.sizes).numpy()))

    def _indices(self, start: int, stop: int) -> Tensor:
        return torch.from_numpy(np.sort(plain(self.order[start:stop])))


class _CountedBlocks(_Blocks):
    """Norms from a histogram, as if the entries were spread evenly between the ends of their bins: every magnitude is
    right to 1/32, so norms are, and MLMC's second moment is at most 1 + 2^−10 times the least (B13.2).
    """

    def __init__(self, v: Tensor, sizes: Tensor, values: Coding, histogram: MagnitudeHistogram) -> None:
        super().__init__(v, sizes, values)
        self.histogram = histogram
        bins = np.flatnonzero(histogram.counts)[::-1]
        self._counts, self._low, self._high = (
            x[bins] for x in (histogram.counts, histogram.smallest, histogram.largest)
        )
        # For the places between blocks: the bin each lies in, the share of it that lies above, the magnitude there.
        ranks, reached = np.append(0, self.stops.numpy()), np.cumsum(self._counts)
        self._bin = np.minimum(np.searchsorted(reached, ranks, side="right"), len(bins) - 1)
        self._below = (reached[self._bin] - ranks) / self._counts[self._bin]
        self._at = self._low[self._bin] + self._below * (self._high - self._low)[self._bin]
        self.largest = torch.from_numpy(self._at[:-1])

    def _relative_sums(self, power: int) -> Tensor:
        """Differences of sums from the small end; at least as much as the smallest entry of each block makes."""
        mean = _mean_power(self._low, self._high, power)
        smaller = np.append(np.cumsum((self._counts * mean)[:0:-1])[::-1], 0.0)
        partial = self._counts[self._bin] * self._below * _mean_power(self._low[self._bin], self._at, power)
        tail = smaller[self._bin] + partial
        sums = np.maximum(tail[:-1] - tail[1:], self.sizes.numpy() * self._at[1:] ** power)
        return torch.from_numpy(sums / np.where(self._at[:-1] > 0, self._at[:-1], 1.0) ** power)

    def norms(self) -> Tensor:
        # None is zero, as far as the histogram knows: the bin of zero holds the smallest subnormal numbers too.
        norms = super().norms()
        return norms.clamp(min=float(norms.sum()) * _RESERVE / len(norms))

    def second_moments(self) -> Tensor:
        return _SortedBlocks(self.v, self.sizes, self.values).norms().square()

    def _indices(self, start: int, stop: int) -> Tensor:
        return self.histogram.ranked(start, stop)


def _mean_power(low: np.ndarray, high: np.ndarray, power: int) -> np.ndarray:
    """The mean of x^power over x from low to high, power 1 or 2."""
    return (low + high) / 2 if power == 1 else (low * low + low * high + high * high) / 3
