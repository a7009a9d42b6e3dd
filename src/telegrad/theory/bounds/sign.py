"""Sign methods: convergence bounds."""

from __future__ import annotations

import math

from telegrad.theory.bounds.stating import bound
from telegrad.theory.step_sizes import sign as steps

__all__ = ["sign_majority"]


@bound(
    "sign_majority", "coordinate-wise smooth f, unimodal symmetric noise, batch T (N = T² gradients)",
    "gradient²", "C3.1", steps.sign_majority,
)  # fmt: skip
def sign_majority(*, L_sum: float, gap: float, sigma_sum: float, T: int, workers: int = 1) -> float:
    """(Mean ‖g‖₁)² ≤ (1/T)(√‖L⃗‖₁(Δ + ½) + (2/√M)‖σ⃗‖₁)², at γ = 1/√(‖L⃗‖₁T)"""
    return (math.sqrt(L_sum) * (gap + 0.5) + 2 / math.sqrt(workers) * sigma_sum) ** 2 / T
