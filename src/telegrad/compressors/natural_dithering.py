"""Natural dithering: stochastic rounding to levels of the norm that double."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.compressors.dithering import dithering_omega, p_norm
from telegrad.kernels.quantising.exponents import level_below, rounded_to_levels
from telegrad.kernels.reference import power_of_two
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import All, IndexSet
from telegrad.wire.values import Table

__all__ = ["NaturalDithering"]


@register("natural_dithering", example="natural_dithering(levels=8, norm=2)", source="A12; Horváth et al. 2019")
@dataclass(frozen=True)
class NaturalDithering(Unbiased):
    """Natural dithering: stochastic rounding of every entry to powers of two of a p-norm.

    y_j = |x_j| / ‖x‖_p is rounded, without a bias, to a neighbour among 0, 2^(1−s), …, 1/2, 1, s = `levels` (A12.1).

    With b = 2^(1−s) and R = d^(2/min(p,2)) b²: omega = √R − 1 where √R >= 9/4, attained by equal entries for p <= 2,
    else 1/8 + 2R/9; within (A12.2). For p = ∞ it is the larger of 1/8 and (√(1 + (d−1) b²) − 1)/2. One level is
    `dithering`.

    Args:
        levels: s, the number of powers of two.
        norm: p from 1 on, or inf.

    References:
        Horváth et al., "Natural Compression for Distributed Deep Learning", 2019, https://arxiv.org/abs/1905.10988
    """

    levels: int = 8
    norm: float | Literal["inf"] = 2.0

    def __post_init__(self) -> None:
        check_that(1 <= self.levels <= 30, self, "levels", "a number of levels from 1 to 30 is allowed")
        check_that(self.norm == "inf" or self.norm >= 1, self, "norm", "inf or a number from 1 is allowed")

    def omega(self, d: int) -> float:
        # The variance of y is at most y²/8 above b (A11.2) and y (b − y) below, which is at most μ y² + b²/(4 (1 + μ))
        # for every μ >= 1/8; least over μ as in `dithering_omega`.
        p, bottom = float(self.norm), 2.0 ** (1 - self.levels)
        if self.levels == 1 or d <= 1:
            return dithering_omega(d, 1, p)
        if math.isinf(p):
            return max(0.125, (math.sqrt(1 + (d - 1) * bottom**2) - 1) / 2)
        ratio = d ** (2 / min(p, 2.0)) * bottom**2
        return math.sqrt(ratio) - 1 if ratio >= 81 / 16 else 0.125 + 2 * ratio / 9

    @property
    def _points(self) -> Tensor:
        exponents = torch.arange(1 - self.levels, 1)
        return torch.cat([torch.zeros(1, dtype=torch.float64), power_of_two(exponents)])

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        norm, s = p_norm(v, float(self.norm)), self.levels
        signed = plain(rounded_to_levels(v, norm, s, key))
        which = np.flatnonzero(signed)
        shifted = signed[which].astype(np.uint8) + np.uint8(s)  # from −s … s, modulo 256, to 0 … 2s
        # Only the levels that occur are sent.
        present = np.flatnonzero(np.bincount(shifted, minlength=2 * s + 1))
        symbol = np.zeros(2 * s + 1, dtype=np.uint8)
        symbol[present] = np.arange(len(present))
        level = torch.from_numpy(present - s)
        table = Table(torch.from_numpy(symbol[shifted]), level.sign() * self._points[level.abs()] * norm)
        positions = All(len(v)) if len(which) == len(v) else IndexSet(len(v), torch.from_numpy(which))
        return Encoded((Term(positions, table.rounded(v.dtype, key.fold(role="scale"))),))

    def _variance(self, v: Tensor) -> float:
        x = v.double()
        norm = p_norm(x, float(self.norm))
        level, share = level_below((x.abs() / norm).clamp(max=1.0), self.levels)
        step = self._points[level.clamp(min=1)]
        return norm**2 * float((step.square() * share * (1 - share)).sum())
