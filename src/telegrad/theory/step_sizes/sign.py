"""Sign methods: step sizes."""

from __future__ import annotations

import math

from telegrad.theory.step_sizes.stating import step_size

__all__ = ["sign_majority"]


@step_size("sign_majority", case="coordinate-wise smooth f, unimodal symmetric noise, batch T", source="C3.1")
def sign_majority(*, L_sum: float, T: int) -> float:
    """γ = 1/√(‖L⃗‖₁T)"""
    return 1 / math.sqrt(L_sum * T)
