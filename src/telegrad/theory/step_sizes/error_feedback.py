"""Error feedback, EF14, EF21, EF21-SGDM and EF-BV: step sizes."""

from __future__ import annotations

import math

from telegrad.errors import ConfigError
from telegrad.theory.step_sizes.stating import over, parameter, step_size

__all__ = ["ef14", "ef21", "ef21_pl", "ef21_sgdm", "ef21_sgdm_momentum", "ef_bv", "ef_bv_weights"]


@step_size("ef14", case="E‖g‖² ≤ G², one worker, T steps", source="C4.3")
def ef14(*, L: float, alpha: float, G2: float, gap: float, T: int) -> float:
    """The γ that minimises 2Δ/(γT) + γLG² + 4γ²L²G²(1 − α)/α²"""
    low, high = 0.0, math.sqrt(2 * gap / (T * L * G2))

    def excess(step: float) -> float:
        return step**2 * L * G2 + 8 * step**3 * L**2 * G2 * (1 - alpha) / alpha**2 - 2 * gap / T

    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return high


def ef21_ratio(alpha: float) -> float:
    """√(β/θ) = √(1 − α)/(1 − √(1 − α)) ≤ 2/α − 1 (C5.2)."""
    return math.sqrt(1 - alpha) / ef21_theta(alpha)


def ef21_theta(alpha: float) -> float:
    """θ = 1 − √(1 − α) (C5.2)."""
    return alpha / (1 + math.sqrt(1 - alpha))  # the same, without cancellation at small α


@step_size("ef21", case="nonconvex f", source="C5.3")
def ef21(*, L: float, L_mean: float, alpha: float) -> float:
    """γ ≤ 1/(L + L~√(β/θ)), √(β/θ) = √(1 − α)/(1 − √(1 − α))"""
    return 1 / (L + L_mean * ef21_ratio(alpha))


@step_size("ef21", case="Polyak-Łojasiewicz f", source="C5.4")
def ef21_pl(*, L: float, L_mean: float, mu: float, alpha: float) -> float:
    """γ ≤ min{1/(L + L~√(2β/θ)), θ/(2μ)}, θ = 1 − √(1 − α)"""
    theta = ef21_theta(alpha)
    return min(1 / (L + L_mean * math.sqrt(2) * ef21_ratio(alpha)), theta / (2 * mu))


@step_size("ef21_sgdm", case="nonconvex f, momentum η", source="C6.2")
def ef21_sgdm(*, L: float, L_mean: float, alpha: float, momentum: float) -> float:
    """γ ≤ min{α/(20L~), η/(7L)}"""
    return min(alpha / (20 * L_mean), momentum / (7 * L))


@parameter("ef21_sgdm", case="the momentum for T steps", source="C6.4")
def ef21_sgdm_momentum(*, L: float, alpha: float, sigma2: float, gap: float, workers: int, T: int) -> float:
    """η = min{1, (LΔM/(σ²T))^½, (LΔα/(σ²T))^⅓, (LΔα²/(σ²T))^¼}"""
    ratio = over(L * gap, sigma2 * T)
    return min(1.0, (ratio * workers) ** 0.5, (ratio * alpha) ** (1 / 3), (ratio * alpha**2) ** 0.25)


@parameter("ef_bv", case="the weights of shift and estimate", source="C7.2")
def ef_bv_weights(*, eta: float, spread: float, workers: int) -> dict[str, float]:
    """λ = min{1, (1 − η)/((1 − η)² + ω)}, ν the same of ω/M; r, r_av, s*, θ* of the rate"""
    if eta == 1:
        raise ConfigError("eta=1: EF-BV needs a compressor whose relative bias is below 1")

    def weight(variance: float) -> float:
        return min(1.0, over(1 - eta, (1 - eta) ** 2 + variance))

    def remains(w: float, variance: float) -> float:
        return (1 - w + w * eta) ** 2 + w**2 * variance

    shift, estimate = weight(spread), weight(spread / workers)
    r, r_mean = remains(shift, spread), remains(estimate, spread / workers)
    s = math.sqrt((1 + r) / (2 * r)) - 1 if r else math.inf
    theta = s * (1 + s) * r / r_mean if r else math.inf
    return {"lambda": shift, "nu": estimate, "r": r, "r_mean": r_mean, "s": s, "theta": theta}


@step_size("ef_bv", case="any f", source="C7.2")
def ef_bv(*, L: float, L_mean: float, eta: float, spread: float, workers: int) -> float:
    """γ ≤ 1/(L + L~√(r_av/r)/s*)"""
    w = ef_bv_weights(eta=eta, spread=spread, workers=workers)
    return 1 / (L + (L_mean * math.sqrt(w["r_mean"] / w["r"]) / w["s"] if w["r"] else 0.0))
