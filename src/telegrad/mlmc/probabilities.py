"""With what probability each level is drawn. Any law that is positive on the non-zero levels leaves MLMC unbiased
(B13.1).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from telegrad.mlmc.ladder import Levels

__all__ = ["Law", "draw_level", "level_probabilities"]

Law = Literal["adaptive", "fixed", "cost"]


def level_probabilities(levels: Levels, law: Law) -> Tensor:
    """p_1 … p_L as float64 of shape (L,), summing to 1.

    adaptive: p ∝ Δ_l, least variance (Lemma 3.4, B1.5). cost: p ∝ Δ_l / √K_l, least variance times bits (B9.1).
    fixed: the ladder's own law, the same for every vector (Algorithm 2).
    """
    if law == "fixed":
        return levels.fixed_probabilities()
    norms = levels.norms()
    if not bool(norms.any()):  # the base is all there is
        return levels.fixed_probabilities()
    weights = norms / norms.max()
    # Never drawn in practice, and 1/p would overflow.
    weights[weights < 2.0**-1000] = 0.0
    if law == "cost":
        weights = weights / levels.costs().sqrt()
    return weights / weights.sum()


def draw_level(p: Tensor, u: float) -> int:
    """The level (from 1) that u, uniform on [0, 1), draws from p by inversion; never one of probability zero."""
    cumulative = p.cumsum(0)
    level = int(torch.searchsorted(cumulative, u * float(cumulative[-1]), right=True))
    return min(level, int(p.nonzero()[-1])) + 1
