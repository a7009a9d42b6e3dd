"""The ECUQ ladder: level l has an entropy budget of l bits an entry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.ecuq import UniformBins
from telegrad.mlmc.ladder import Ladder, Levels, geometric_probabilities
from telegrad.mlmc.points import PointLevels
from telegrad.spec import check_that, register

__all__ = ["ECUQLadder"]


@register(
    "ecuq",
    example="ecuq(budgets=6)",
    source="A17, B1; the quantiser: Dorfman, Vargaftik, Ben-Itzhak, Levy, ICML 2023 (DoCoFL)",
)
@dataclass(frozen=True)
class ECUQLadder(Ladder):
    """The ECUQ ladder: entropy-coded uniform quantisation with one bit an entry more on each level.

    g^l = ECUQ with l bits an entry, l = 1 … `budgets`; one more level is v itself, so that nothing is biased.

    E‖C(v) − v‖² = (ΣΔ_l)² − ‖v‖² with adaptive probabilities.

    Args:
        budgets: levels before the exact one: level l has l bits an entry.

    References:
        Dorfman et al., "DoCoFL: Downlink Compression for Cross-Device Federated Learning", 2023,
            https://arxiv.org/abs/2302.00543
    """

    budgets: int = 6

    values = "fp32"

    def __post_init__(self) -> None:
        check_that(1 <= self.budgets <= 12, self, "budgets", "a number of budgets from 1 to 12 is allowed")

    def omega(self, d: int, adaptive: bool) -> float:
        # ‖g^l − v‖ <= √d Δ/2 with Δ <= range / 2^l and range <= √2 ‖v‖; Δ_l by the triangle inequality.
        bounds = [1.0] + [(d / 2) ** 0.5 / 2**level for level in range(1, self.budgets + 1)] + [0.0]
        error = torch.tensor(bounds, dtype=torch.float64)
        norms = error[1:] + error[:-1]
        if adaptive:
            return float(norms.sum()) ** 2 - 1
        return float((norms.square() / geometric_probabilities(self.budgets + 1)).sum()) - 1

    def levels(self, v: Tensor) -> Levels:
        bins = UniformBins(v)
        return PointLevels(
            v,
            lambda level: bins.grid(bins.levels_within(level)),
            self.budgets,
            geometric_probabilities(self.budgets + 1),
        )
