"""SGD, plain and with an unbiased compressor: step sizes, gradient descent included."""

from __future__ import annotations

import math

from telegrad.theory.step_sizes.stating import over, step_size

__all__ = ["gd", "sgd", "sgd_any_data", "sgd_convex", "sgd_down", "sgd_nonconvex"]


@step_size("gd", case="f L-smooth", source="F2")
def gd(*, L: float) -> float:
    """γ = 1/L"""
    return 1 / L


@step_size("sgd", case="any f, largest step", source="B7.4; C2.1")
def sgd(*, L: float, workers: int, omega: float = 0.0) -> float:
    """γ ≤ 1/(L(1 + ω/M))"""
    return 1 / (L * (1 + omega / workers))


def noise(omega: float, sigma2: float, xi2: float) -> float:
    """S' = (1 + ω)σ² + ωξ²: what compression makes of a worker's noise and of the workers' differences (B7.4)."""
    return (1 + omega) * sigma2 + omega * xi2


@step_size("sgd", case="convex f, for T steps", source="B7.4")
def sgd_convex(
    *, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float = 0.0, xi2: float = 0.0
) -> float:
    """γ = min{1/(L(1 + ω/M)), D√(M/(S'T))}, S' = (1 + ω)σ² + ωξ²"""
    rest = math.sqrt(noise(omega, sigma2, xi2) * T / workers)
    return min(sgd(L=L, workers=workers, omega=omega), over(distance, rest))


@step_size("sgd", case="nonconvex f, for T steps", source="B7.4")
def sgd_nonconvex(
    *, L: float, workers: int, sigma2: float, gap: float, T: int, omega: float = 0.0, xi2: float = 0.0
) -> float:
    """γ = min{1/(L(1 + ω/M)), √(2ΔM/(LS'T))}, S' = (1 + ω)σ² + ωξ²"""
    rest = math.sqrt(L * noise(omega, sigma2, xi2) * T)
    return min(sgd(L=L, workers=workers, omega=omega), over(math.sqrt(2 * gap * workers), rest))


@step_size("sgd", case="strongly convex f, each f_i convex, workers however unlike", source="B7.4; F2 (DCGD)")
def sgd_any_data(*, L: float, L_max: float, workers: int, omega: float = 0.0) -> float:
    """γ ≤ 1/(L + 2ωL_max/M)"""
    return 1 / (L + 2 * omega * L_max / workers)


@step_size("sgd", case="the server compresses too, to E‖∇f‖² ≤ ε", source="C2.2")
def sgd_down(
    *, L: float, workers: int, sigma2: float, accuracy: float, omega: float, omega_down: float, xi2: float = 0.0
) -> float:
    """γ = ε/(L(a + εb)), a = (1 + ω_M)((1 + ω)σ² + ωξ²)/M, b = (1 + ω_M)(1 + ω/M)"""
    a = (1 + omega_down) * noise(omega, sigma2, xi2) / workers
    return accuracy / (L * (a + accuracy * (1 + omega_down) * (1 + omega / workers)))
