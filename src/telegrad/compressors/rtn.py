"""RTN: rounding to nearest on a uniform grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from telegrad.compressors.gridded import Gridded
from telegrad.kernels.quantising.uniform_grids import EVEN, ODD, UniformGrid
from telegrad.kernels.statistics.magnitudes import largest_magnitude
from telegrad.spec import register
from telegrad.wire.values.base import scalar_dtype

__all__ = ["RTN", "GridKind", "rtn_grid"]

GridKind = Literal["mid_tread", "mid_rise"]


def rtn_grid(largest: float, level: int, grid: GridKind = "mid_tread") -> UniformGrid:
    """The grid of `level` bits over [−c, c], c = ‖v‖_∞ = `largest`, with δ = 2c / (2^level − 1).

    Mid-tread (A16.1): points δ q, |q| <= 2^(level−1) − 1, halves go to the even q; level 1 has the one point 0.
    Mid-rise (A16.2): δ/2 · q with q odd, |q| <= 2^level − 1, halves go up; level 1 is c sign(v) with sign(0) = +1.
    """
    width = 2 * largest / (2**level - 1)
    if grid == "mid_rise":
        return UniformGrid(0.0, width, ODD, 1 - 2**level, 2**level - 1, 0.0, width / 2)
    top = 2 ** (level - 1) - 1
    return UniformGrid(0.0, width, EVEN, -top, top, 0.0, width)


@register(
    "rtn", example="rtn(level=4)", source="A16; Gupta et al. 2015; Zukerman, Hamoud, Levy, ICML 2025, appendix G.2"
)
@dataclass(frozen=True)
class RTN(Gridded):
    """Round to nearest: every entry goes to the nearest point of a uniform grid.

    C(x) = the nearest of 2^level − 1 points δ q around 0, δ = 2‖x‖_∞ / (2^level − 1): the mid-tread grid (A16.1).

    |C(x)_j − x_j| <= min(|x_j|, δ/2); contractive with alpha = (1 − t²) / (1 + (d−1) t²), t = 1 / (2^level − 1),
    attained by one entry c and d − 1 of magnitude c t. `grid=mid_rise`: the 2^level points −c, −c + δ, …, c, without 0
    (A16.2); |C(x)_j − x_j| <= δ/2, and alpha = 1 − (d−1) t² where that is positive, attained by one non-zero entry.

    Args:
        level: bits of an entry's symbol.
        grid: mid_tread, with a point at 0, or mid_rise, without.

    References:
        Gupta et al., "Deep Learning with Limited Numerical Precision", 2015, https://arxiv.org/abs/1502.02551
        Zukerman, Hamoud and Levy, "Beyond Communication Overhead: A Multilevel Monte Carlo Approach for Mitigating
            Compression Bias in Distributed Learning", 2025, https://arxiv.org/abs/2507.05508
    """

    level: int
    grid: GridKind = "mid_tread"

    def alpha(self, d: int) -> float:
        t = (2**self.level - 1) ** -2
        if self.grid == "mid_rise":
            return max(0.0, 1 - (d - 1) * t)
        return (1 - t) / (1 + (d - 1) * t)

    def symbols(self, v: Tensor) -> tuple[Tensor, float]:
        grid = rtn_grid(largest_magnitude(v), self.level, self.grid)
        return grid.numbers(v), grid.step

    def _carried(self, step: float, v: Tensor) -> float:
        carried = super()._carried(step, v)
        if self.grid == "mid_rise" and carried * (2**self.level - 1) > largest_magnitude(v):
            # The outermost point is c itself, and must not be rounded to beyond it, where it could overflow.
            wide = torch.tensor(carried, dtype=scalar_dtype(v.dtype))
            return float(torch.nextafter(wide, torch.zeros_like(wide)))
        return carried
