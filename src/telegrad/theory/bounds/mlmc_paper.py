"""The MLMC paper's convergence bounds for SGD, as printed and as its own proofs give them (B7.2, B7.3, B8)."""

from __future__ import annotations

import math

from telegrad.theory.bounds.stating import gradient_bound, loss_bound, within
from telegrad.theory.step_sizes import mlmc_paper as steps

__all__ = [
    "sgd_paper_convex",
    "sgd_paper_convex_as_printed",
    "sgd_paper_convex_at",
    "sgd_paper_convex_unlike",
    "sgd_paper_convex_unlike_as_printed",
    "sgd_paper_nonconvex",
    "sgd_paper_nonconvex_as_printed",
    "sgd_paper_nonconvex_at",
    "sgd_paper_nonconvex_unlike",
    "sgd_paper_nonconvex_unlike_as_printed",
]


@loss_bound("sgd", "the MLMC paper: convex, alike workers, any step", source="B7.2 (88)", step=steps.sgd_paper_convex)
def sgd_paper_convex_at(
    *, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float, lr: float
) -> float:
    """Mean f − f* ≤ D²/(γT) + 4γ(2ω + 1)σ²/M, γ ≤ min{1/(2L), M/(16ωL)}"""
    within(lr, steps.largest_convex(L, workers, omega))
    return distance**2 / (lr * T) + 4 * lr * (2 * omega + 1) * sigma2 / workers


def _paper_convex(
    constant: float, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float
) -> float:
    noisy = math.sqrt(sigma2 * (2 * omega + 1)) * distance / math.sqrt(workers * T)
    return 2 * distance**2 * L / T + 16 * omega * distance**2 * L / (workers * T) + constant * noisy


@loss_bound("sgd", "the MLMC paper, as printed: convex, alike workers, best step", source="B7.2 (89)")
def sgd_paper_convex_as_printed(
    *, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float
) -> float:
    """2D²L/T + 16ωD²L/(MT) + 2σ√(2ω + 1)D/√(MT): its own algebra gives 4 for the last 2"""
    return _paper_convex(2.0, L, workers, sigma2, distance, T, omega)


@loss_bound("sgd", "the MLMC paper, corrected: convex, alike workers, best step", source="B7.2 (89)")
def sgd_paper_convex(*, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float) -> float:
    """Mean f − f* ≤ 2D²L/T + 16ωD²L/(MT) + 4σ√(2ω + 1)D/√(MT)"""
    return _paper_convex(4.0, L, workers, sigma2, distance, T, omega)


@gradient_bound(
    "sgd", "the MLMC paper: nonconvex, alike workers, any step", source="B7.2 (92)", step=steps.sgd_paper_nonconvex
)
def sgd_paper_nonconvex_at(
    *, L: float, workers: int, sigma2: float, gap: float, T: int, omega: float, lr: float
) -> float:
    """Mean ‖∇f‖² ≤ 4Δ/(γT) + 4γ(2ω + 1)σ²L/M, γ ≤ min{1/L, M/(8ωL)}"""
    within(lr, steps.largest_nonconvex(L, workers, omega))
    return 4 * gap / (lr * T) + 4 * lr * (2 * omega + 1) * sigma2 * L / workers


@gradient_bound("sgd", "the MLMC paper, as printed: nonconvex, alike workers, best step", source="B7.2 (93); B8")
def sgd_paper_nonconvex_as_printed(*, L: float, workers: int, sigma2: float, gap: float, T: int, omega: float) -> float:
    """4ΔL/T + 32ωΔL/(MT) + 8σ√((2ω + 1)L)/√(MT): the last term lacks √Δ"""
    first = 4 * gap * L / T + 32 * omega * gap * L / (workers * T)
    return first + 8 * math.sqrt(sigma2 * (2 * omega + 1) * L / (workers * T))


@gradient_bound("sgd", "the MLMC paper, corrected: nonconvex, alike workers, best step", source="B7.2 (93)")
def sgd_paper_nonconvex(*, L: float, workers: int, sigma2: float, gap: float, T: int, omega: float) -> float:
    """Mean ‖∇f‖² ≤ 4ΔL/T + 32ωΔL/(MT) + 8σ√((2ω + 1)LΔ)/√(MT)"""
    first = 4 * gap * L / T + 32 * omega * gap * L / (workers * T)
    return first + 8 * math.sqrt(sigma2 * (2 * omega + 1) * L * gap / (workers * T))


def _paper_convex_unlike(
    factor: float, last: float, L: float, workers: int, stays: float, distance: float, T: int, omega: float
) -> float:
    first = 2 * distance**2 * L / T + factor * omega * distance**2 * L / (workers * T)
    return first + last * distance * math.sqrt(stays / (workers * T))


@loss_bound("sgd", "the MLMC paper, as printed: convex, unlike workers, best step", source="B7.3 (118)")
def sgd_paper_convex_unlike_as_printed(
    *, L: float, workers: int, sigma2: float, xi2: float, distance: float, T: int, omega: float
) -> float:
    """2D²L/T + 16ωD²L/(MT) + D√S/√(MT): its own algebra gives 24 for 16 and 2 for the last 1"""
    stays = steps.unlike_noise(omega, sigma2, xi2)
    return _paper_convex_unlike(16, 1, L, workers, stays, distance, T, omega)


@loss_bound("sgd", "the MLMC paper, corrected: convex, unlike workers, best step", source="B7.3")
def sgd_paper_convex_unlike(
    *, L: float, workers: int, sigma2: float, xi2: float, distance: float, T: int, omega: float
) -> float:
    """Mean f − f* ≤ 2D²L/T + 24ωD²L/(MT) + 2D√S/√(MT), S = 4(3ω + 1)σ² + 12ωξ²"""
    stays = steps.unlike_noise(omega, sigma2, xi2)
    return _paper_convex_unlike(24, 2, L, workers, stays, distance, T, omega)


@gradient_bound("sgd", "the MLMC paper, as printed: nonconvex, unlike workers, best step", source="B7.3 (123); B8")
def sgd_paper_nonconvex_unlike_as_printed(
    *, L: float, workers: int, sigma2: float, xi2: float, gap: float, T: int, omega: float
) -> float:
    """4ΔL/T + 48ωΔL/(MT) + 2√(SL)/√(MT): half the constant, and no √Δ"""
    stays = steps.unlike_noise(omega, sigma2, xi2)
    first = 4 * gap * L / T + 48 * omega * gap * L / (workers * T)
    return first + 2 * math.sqrt(stays * L / (workers * T))


@gradient_bound("sgd", "the MLMC paper, corrected: nonconvex, unlike workers, best step", source="B7.3")
def sgd_paper_nonconvex_unlike(
    *, L: float, workers: int, sigma2: float, xi2: float, gap: float, T: int, omega: float
) -> float:
    """Mean ‖∇f‖² ≤ 4ΔL/T + 48ωΔL/(MT) + 4√(ΔSL)/√(MT), S = 4(3ω + 1)σ² + 12ωξ²"""
    stays = steps.unlike_noise(omega, sigma2, xi2)
    first = 4 * gap * L / T + 48 * omega * gap * L / (workers * T)
    return first + 4 * math.sqrt(gap * stays * L / (workers * T))
