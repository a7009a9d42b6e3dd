"""The RTN ladder: level l refines the uniform grid of l − 1 bits to one of l bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.rtn import GridKind, rtn_grid
from telegrad.kernels.statistics.magnitudes import largest_magnitude
from telegrad.mlmc.ladder import Ladder, Levels, geometric_probabilities
from telegrad.mlmc.points import PointLevels
from telegrad.spec import check_that, register

__all__ = ["RTNLadder"]


@register(
    "rtn", example="rtn(grids=12)", source="A16, B5; Zukerman, Hamoud, Levy, ICML 2025, section 3.2 and appendix G.2"
)
@dataclass(frozen=True)
class RTNLadder(Ladder):
    """The round-to-nearest ladder: uniform grids with one bit an entry more on each level.

    g^l = rounding to nearest with l bits, l = 1 … `grids`, on the `grid` named as in `rtn`; one more level is v
    itself, so that nothing is biased (B5.1).

    Residuals take few distinct values, sent once in a table; the exact level costs the tensor's full precision.
    E‖C(v) − v‖² = (ΣΔ_l)² − ‖v‖² with adaptive probabilities. Level 1 of the mid-tread grid is zero and never drawn;
    that of the mid-rise grid is m sign(v), of norm m √d, which is dear where the largest entry m stands out (B5.3).

    Args:
        grids: levels before the exact one: level l has l bits an entry.
        grid: mid_tread or mid_rise, see the compressor `rtn`.

    References:
        Zukerman, Hamoud and Levy, "Beyond Communication Overhead: A Multilevel Monte Carlo Approach for Mitigating
            Compression Bias in Distributed Learning", 2025, https://arxiv.org/abs/2507.05508
    """

    grids: int = 12
    grid: GridKind = "mid_tread"

    values = "fp32"

    def __post_init__(self) -> None:
        check_that(2 <= self.grids <= 20, self, "grids", "a number of grids from 2 to 20 is allowed")

    def omega(self, d: int, adaptive: bool) -> float:
        # |g^l − v| <= min(|v|, δ_l/2) entry by entry, and m <= ‖v‖, bound every Δ_l by the triangle inequality.
        # A mid-rise grid has no zero, so there only the second bound holds; its level 0 is zero, of error 1.
        worst, first = (1.0, 1) if self.grid == "mid_tread" else (d**0.5, 0)
        bounds = [1.0] + [min(worst, d**0.5 / (2**level - 1)) for level in range(1, self.grids + 1)] + [0.0]
        error = torch.tensor(bounds[first:], dtype=torch.float64)
        norms = error[1:] + error[:-1]
        if adaptive:
            return float(norms.sum()) ** 2 - 1
        return float((norms.square() / self._fixed()[first:]).sum()) - 1

    def _fixed(self) -> Tensor:
        if self.grid == "mid_rise":
            return geometric_probabilities(self.grids + 1)
        return torch.cat([torch.zeros(1, dtype=torch.float64), geometric_probabilities(self.grids)])

    def levels(self, v: Tensor) -> Levels:
        largest = largest_magnitude(v)
        return PointLevels(v, lambda level: rtn_grid(largest, level, self.grid), self.grids, self._fixed())
