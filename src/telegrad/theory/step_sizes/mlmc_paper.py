"""The MLMC paper's step sizes for SGD, as printed and as its own proofs give them (B7.2, B7.3, B8)."""

from __future__ import annotations

import math

from telegrad.theory.step_sizes.stating import over, step_size

__all__ = [
    "sgd_paper_convex",
    "sgd_paper_convex_unlike",
    "sgd_paper_convex_unlike_as_printed",
    "sgd_paper_nonconvex",
    "sgd_paper_nonconvex_as_printed",
    "sgd_paper_nonconvex_unlike",
]

_MLMC = "Zukerman, Hamoud, Levy, ICML 2025"


def largest_convex(L: float, workers: int, omega: float) -> float:
    """min{1/(2L), M/(16ωL)}: the largest step of Theorem 4.1 for convex f."""
    return min(1 / (2 * L), over(workers, 16 * omega * L))


def largest_nonconvex(L: float, workers: int, omega: float) -> float:
    """min{1/L, M/(8ωL)}: the largest step of Theorem 4.1 for nonconvex f."""
    return min(1 / L, over(workers, 8 * omega * L))


@step_size("sgd", case="the MLMC paper: convex, alike workers, T steps", source=f"B7.2, Theorem 4.1 (89); {_MLMC}")
def sgd_paper_convex(*, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float) -> float:
    """γ = min{1/(2L), M/(16ωL), D√M/(2σ√((2ω + 1)T))}"""
    third = over(distance * math.sqrt(workers), 2 * math.sqrt(sigma2 * (2 * omega + 1) * T))
    return min(largest_convex(L, workers, omega), third)


@step_size("sgd", case="the MLMC paper, corrected: nonconvex, alike workers, T steps", source=f"B7.2 (93); {_MLMC}")
def sgd_paper_nonconvex(*, L: float, workers: int, sigma2: float, gap: float, T: int, omega: float) -> float:
    """γ = min{1/L, M/(8ωL), √(ΔM)/(σ√((2ω + 1)LT))}"""
    third = over(math.sqrt(gap * workers), math.sqrt(sigma2 * (2 * omega + 1) * L * T))
    return min(largest_nonconvex(L, workers, omega), third)


@step_size("sgd", case="the MLMC paper, as printed: nonconvex, alike workers, T steps", source=f"B7.2 (93); {_MLMC}")
def sgd_paper_nonconvex_as_printed(*, L: float, workers: int, sigma2: float, T: int, omega: float) -> float:
    """γ = min{1/L, M/(8ωL), √M/(σ√((2ω + 1)LT))}: without Δ the third entry has other units than a step"""
    return sgd_paper_nonconvex(L=L, workers=workers, sigma2=sigma2, gap=1.0, T=T, omega=omega)


def unlike_noise(omega: float, sigma2: float, xi2: float) -> float:
    """S = 4(3ω + 1)σ² + 12ωξ² of the MLMC paper's Theorem F.2 (B7.3)."""
    return 4 * (3 * omega + 1) * sigma2 + 12 * omega * xi2


@step_size("sgd", case="the MLMC paper, corrected: convex, unlike workers, T steps", source=f"B7.3 (117); {_MLMC}")
def sgd_paper_convex_unlike(
    *, L: float, workers: int, sigma2: float, xi2: float, distance: float, T: int, omega: float
) -> float:
    """γ = min{1/(2L), M/(24ωL), D√M/√(ST)}, S = 4(3ω + 1)σ² + 12ωξ²"""
    third = over(distance * math.sqrt(workers), math.sqrt(unlike_noise(omega, sigma2, xi2) * T))
    return min(1 / (2 * L), over(workers, 24 * omega * L), third)


@step_size("sgd", case="the MLMC paper, as printed: convex, unlike workers, T steps", source=f"B7.3 (118); {_MLMC}")
def sgd_paper_convex_unlike_as_printed(
    *, L: float, workers: int, sigma2: float, xi2: float, distance: float, T: int, omega: float
) -> float:
    """γ = min{1/(2L), M/(16ωL), D√M/√(ST)}: 16 where the proof has 24"""
    third = over(distance * math.sqrt(workers), math.sqrt(unlike_noise(omega, sigma2, xi2) * T))
    return min(1 / (2 * L), over(workers, 16 * omega * L), third)


@step_size("sgd", case="the MLMC paper, corrected: nonconvex, unlike workers, T steps", source=f"B7.3 (124); {_MLMC}")
def sgd_paper_nonconvex_unlike(
    *, L: float, workers: int, sigma2: float, xi2: float, gap: float, T: int, omega: float
) -> float:
    """γ = min{1/L, M/(12ωL), √(4ΔM/(SLT))}, S = 4(3ω + 1)σ² + 12ωξ²"""
    third = over(math.sqrt(4 * gap * workers), math.sqrt(unlike_noise(omega, sigma2, xi2) * L * T))
    return min(1 / L, over(workers, 12 * omega * L), third)
