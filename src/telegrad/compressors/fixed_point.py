"""Fixed-point truncation: the first bits of every entry relative to the largest."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.gridded import Gridded
from telegrad.kernels.quantising.bit_planes import leading_bits
from telegrad.kernels.statistics.magnitudes import largest_magnitude
from telegrad.spec import register

__all__ = ["FixedPoint"]


@register("fixed_point", example="fixed_point(level=4)", source="A14; Zukerman, Hamoud, Levy, ICML 2025, section 3.1")
@dataclass(frozen=True)
class FixedPoint(Gridded):
    """Fixed-point truncation: the leading bits of every entry relative to the largest magnitude.

    C(x)_j = m · sign(x_j) · (the first `level` bits of |x_j| / m), m = ‖x‖_∞, truncated toward zero (A14.1).

    |C(x)_j − x_j| <= m 2^−level; contractive with alpha = (1 − t²) / (1 + (d−1) t²), t = 2^−level, approached by one
    entry m and d − 1 just below m t.

    Args:
        level: bits kept of each magnitude, 1 to 62.

    References:
        Zukerman, Hamoud and Levy, "Beyond Communication Overhead: A Multilevel Monte Carlo Approach for Mitigating
            Compression Bias in Distributed Learning", 2025, https://arxiv.org/abs/2507.05508
    """

    level: int

    def alpha(self, d: int) -> float:
        t = 4.0**-self.level
        return (1 - t) / (1 + (d - 1) * t)

    def symbols(self, v: Tensor) -> tuple[Tensor, float]:
        m = largest_magnitude(v)
        return leading_bits(v, m, self.level, self.level), m * 2.0**-self.level

    def on_gpu(self, v: Tensor) -> bool:
        return True
