"""With what probability each level is drawn. Any law that is positive on the non-zero levels leaves MLMC unbiased
(B13.1).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.random_numbers.weighted_draws import proportional
from telegrad.mlmc.ladder import Levels

__all__ = ["Law", "level_probabilities", "weighed_probabilities"]

Law = Literal["adaptive", "fixed", "cost"]


def level_probabilities(levels: Levels, law: Law) -> Tensor:
    """p_1 … p_L as float64 of shape (L,), summing to 1.

    adaptive: p ∝ Δ_l, least variance (Lemma 3.4, B1.5). cost: p ∝ Δ_l / √K_l, least variance times bits (B9.1).
    fixed: the ladder's own law, the same for every vector (Algorithm 2).
    """
    if law == "fixed":
        return levels.fixed_probabilities()
    weights = proportional(levels.norms().numpy())
    if not weights.any():  # the base is all there is
        return levels.fixed_probabilities()
    if law == "cost":
        weights = proportional(weights / np.sqrt(levels.costs().numpy()))
    return torch.from_numpy(weights)


def weighed_probabilities(norms: Tensor, costs: Tensor, excess: float) -> Tensor:
    """The p that minimises (Σ Δ_l²/p_l − R) · Σ p_l K_l, R = `excess` <= (ΣΔ)² (B9.2); not all norms are zero.

    With R = ‖v − g⁰‖² − c ‖v‖² that is (c + ω) times the expected bits. It has the form p ∝ Δ / √(K − τ) with τ below
    the least cost of a non-zero level, and is unimodal in τ: a golden-section search over log(min K − τ) finds it.
    """
    weights = norms / norms.max()
    # Never drawn in practice, and 1/p would overflow.
    used = weights >= 2.0**-1000
    delta, cost, shifted = weights[used], costs[used], excess / float(norms.max()) ** 2
    least = float(cost.min())

    def law(at: float) -> Tensor:
        p = delta / (cost - least + math.exp(at)).sqrt()
        return p / p.sum()

    def objective(at: float) -> float:
        p = law(at)
        return (float((delta.square() / p).sum()) - shifted) * float((p * cost).sum())

    low, high = math.log(least) - 30.0, math.log(float(cost.max())) + 30.0
    golden = (math.sqrt(5.0) - 1) / 2
    for _ in range(70):
        first, second = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, second) if objective(first) <= objective(second) else (first, high)
    p = torch.zeros_like(norms)
    p[used] = law((low + high) / 2)
    return p
