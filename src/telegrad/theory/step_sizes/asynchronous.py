"""Shadowheart SGD: step sizes."""

from __future__ import annotations

from telegrad.theory.step_sizes.stating import step_size

__all__ = ["shadowheart"]


@step_size("shadowheart", case="nonconvex f, alike data", source="C17.2")
def shadowheart(*, L: float) -> float:
    """γ = 1/(2L)"""
    return 1 / (2 * L)
