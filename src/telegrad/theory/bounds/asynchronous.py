"""Shadowheart SGD: convergence bounds."""

from __future__ import annotations

from telegrad.theory.bounds.stating import share_bound

__all__ = ["shadowheart"]


@share_bound("shadowheart", "nonconvex f, alike data: iterations to E‖∇f‖² ≤ ε", source="C17.2")
def shadowheart(*, L: float, gap: float, accuracy: float) -> float:
    """8LΔ/ε, each of at most 2t* seconds (see `telegrad.theory.equilibrium`)"""
    return 8 * L * gap / accuracy
