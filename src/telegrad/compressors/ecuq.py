"""ECUQ: as many uniform levels as an entropy budget allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import Table

__all__ = ["ECUQ", "bin_entropy", "levels_within", "uniform_bins"]

_TOLERANCE = 0.1
_MOST_LEVELS = 2**16


def uniform_bins(v: Tensor, levels: int) -> tuple[Tensor, float, float]:
    """(bin of each entry, the centre of bin 0, Δ): `levels` bins of width Δ from the smallest entry to the largest."""
    x = v.double()
    low, high = float(x.min()), float(x.max())
    width = (high - low) / levels
    if width == 0.0:
        return torch.zeros(len(v), dtype=torch.int64, device=v.device), low, 0.0
    return ((x - low) / width).floor().clamp(max=levels - 1).to(torch.int64), low + width / 2, width


def bin_entropy(v: Tensor, levels: int) -> float:
    """H(K), the empirical entropy in bits of the bin that an entry falls in."""
    cell = uniform_bins(v, levels)[0]
    # With more bins than entries a sort of the entries is shorter than a histogram.
    counts = torch.bincount(cell) if levels <= len(v) else torch.unique(cell, return_counts=True)[1]
    return float(torch.special.entr(counts.double() / len(v)).sum()) / math.log(2)


def levels_within(v: Tensor, bits: float) -> int:
    """The number K of bins found by a doubling and then a binary search with H(K) <= bits (A17.1).

    The search starts at ⌊2^bits⌋, where this always holds, and stops at an H within 0.1 of the budget, at 2^16 bins, or
    where it has bisected to one: H is not monotone in K, so that the best K seen is a local optimum.
    """
    best = max(1, math.floor(2.0**bits))
    if bin_entropy(v, best) >= bits - _TOLERANCE:
        return best
    start, above = best, None
    for power in range(_MOST_LEVELS.bit_length()):
        tried = start + 2**power
        if tried > _MOST_LEVELS:
            return best
        entropy = bin_entropy(v, tried)
        if entropy > bits:
            above = tried
            break
        best = tried
        if entropy >= bits - _TOLERANCE:
            return best
    while above is not None and above - best > 1:
        middle = (best + above) // 2
        entropy = bin_entropy(v, middle)
        if entropy > bits:
            above = middle
        else:
            best = middle
            if entropy >= bits - _TOLERANCE:
                break
    return best


@register("ecuq", example="ecuq(bits=2)", source="A17; Dorfman, Vargaftik, Ben-Itzhak, Levy, ICML 2023 (DoCoFL)")
@dataclass(frozen=True)
class ECUQ(Compressor):
    """C(x)_j = the centre of the bin of x_j among K equal ones between the smallest and the largest entry (A17).

    K is as large as an empirical entropy of at most `bits` an entry allows (`levels_within`), so that an entropy coder
    sends about `bits` each; the centres that occur are sent once. Deterministic, |C(x)_j − x_j| <= Δ/2; with
    K >= ⌊2^bits⌋, alpha = 1 − d / (2 ⌊2^bits⌋²) where that is positive. Equal entries are sent exactly.
    """

    bits: float

    unbiased = False
    random = False

    def __post_init__(self) -> None:
        check_that(0 < self.bits <= 16, self, "bits", "a number of bits above 0, up to 16, is allowed")

    def omega(self, d: int) -> float:
        return math.inf

    def alpha(self, d: int) -> float:
        # Δ <= range / ⌊2^bits⌋, and range² <= 2 ‖x‖², for the two ends are entries of x.
        return 1.0 if d == 1 else max(0.0, 1 - d / (2 * math.floor(2.0**self.bits) ** 2))

    def _points(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """(which of the centres, the centres that occur)."""
        cell, first, width = uniform_bins(v, levels_within(v, self.bits))
        present, symbol = torch.unique(cell, return_inverse=True)
        return symbol, first + present.double() * width

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        symbol, points = self._points(v)
        return Encoded((Term(All(len(v)), Table(symbol, points).rounded(v.dtype, None)),))

    def _variance(self, v: Tensor) -> float:
        symbol, points = self._points(v)
        return float((v.double() - points[symbol]).square().sum())
