"""ECUQ: as many uniform levels as an entropy budget allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Contractive, Encoded
from telegrad.kernels.quantising.uniform_grids import BELOW, ZERO, Refinement, UniformGrid
from telegrad.kernels.reference import steady_sum
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import Table

__all__ = ["ECUQ", "UniformBins"]

_TOLERANCE = 0.1
_MOST_LEVELS = 2**16


class UniformBins:
    """Bins of one width from the smallest entry of a flat v to the largest, as many as one asks for."""

    def __init__(self, v: Tensor) -> None:
        self.v = v
        self.low, self.high = (float(end) for end in v.aminmax())
        self._entropies: dict[int, float] = {}

    def grid(self, levels: int) -> UniformGrid:
        """`levels` bins, an entry standing for the centre of its bin; one point where all entries are equal."""
        width = (self.high - self.low) / levels
        if width == 0.0:
            return UniformGrid(self.low, 1.0, BELOW, 0, 0, self.low, 0.0)
        return UniformGrid(self.low, width, BELOW, 0, levels - 1, self.low + width / 2, width)

    def entropy(self, levels: int) -> float:
        """H(K), the empirical entropy in bits of the bin that an entry falls in."""
        if levels not in self._entropies:
            self._entropies[levels] = self._entropy(levels)
        return self._entropies[levels]

    def _entropy(self, levels: int) -> float:
        bins = Refinement(ZERO, self.grid(levels))
        counts = bins.counts(self.v)[0] if levels <= len(self.v) else bins.occurring(self.v)[1]
        terms = torch.special.entr(torch.from_numpy(counts).double() / len(self.v))
        return steady_sum(terms) / math.log(2)

    def levels_within(self, bits: float) -> int:
        """The number K of bins found by a doubling and then a binary search with H(K) <= bits (A17.1).

        The search starts at ⌊2^bits⌋, where this always holds, and stops at an H within 0.1 of the budget, at 2^16
        bins, or where it has bisected to one: H is not monotone in K, so that the best K seen is a local optimum.
        """
        best = max(1, math.floor(2.0**bits))
        if self.entropy(best) >= bits - _TOLERANCE:
            return best
        start, above = best, None
        for power in range(_MOST_LEVELS.bit_length()):
            tried = start + 2**power
            if tried > _MOST_LEVELS:
                return best
            entropy = self.entropy(tried)
            if entropy > bits:
                above = tried
                break
            best = tried
            if entropy >= bits - _TOLERANCE:
                return best
        while above is not None and above - best > 1:
            middle = (best + above) // 2
            entropy = self.entropy(middle)
            if entropy > bits:
                above = middle
            else:
                best = middle
                if entropy >= bits - _TOLERANCE:
                    break
        return best


@register("ecuq", example="ecuq(bits=2)", source="A17; Dorfman, Vargaftik, Ben-Itzhak, Levy, ICML 2023 (DoCoFL)")
@dataclass(frozen=True)
class ECUQ(Contractive):
    """ECUQ: entropy-coded uniform quantisation between the smallest and the largest entry.

    C(x)_j = the centre of the bin of x_j among K equal ones between the smallest and the largest entry (A17).

    K is as large as an empirical entropy of at most `bits` an entry allows (`UniformBins.levels_within`), so that an
    entropy coder sends about `bits` each; the centres that occur are sent once. Deterministic, |C(x)_j − x_j| <= Δ/2;
    with K >= ⌊2^bits⌋, alpha = 1 − d / (2 ⌊2^bits⌋²) where that is positive. Equal entries are sent exactly.

    Args:
        bits: empirical entropy of an entry, in bits, at most.

    References:
        Dorfman et al., "DoCoFL: Downlink Compression for Cross-Device Federated Learning", 2023,
            https://arxiv.org/abs/2302.00543
    """

    bits: float

    random = False

    def __post_init__(self) -> None:
        check_that(0 < self.bits <= 16, self, "bits", "a number of bits above 0, up to 16, is allowed")

    def alpha(self, d: int) -> float:
        # Δ <= range / ⌊2^bits⌋, and range² <= 2 ‖x‖², for the two ends are entries of x.
        return 1.0 if d == 1 else max(0.0, 1 - d / (2 * math.floor(2.0**self.bits) ** 2))

    def _table(self, v: Tensor) -> Table:
        """The centres that occur, and which of them each entry goes to."""
        bins = UniformBins(v)
        grid = bins.grid(bins.levels_within(self.bits))
        present, *_ = Refinement(ZERO, grid).occurring(v)
        number = np.zeros(grid.size, dtype=np.int64)
        number[present] = np.arange(len(present))
        symbol = Refinement(ZERO, grid).translated(v, number)
        return Table(torch.from_numpy(symbol), torch.from_numpy(grid.points(present)))

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        return Encoded((Term(All(len(v)), self._table(v).rounded(v.dtype, None)),))

    def _variance(self, v: Tensor) -> float:
        return float((v.double() - self._table(v).numbers()).square().sum())
