"""Error feedback, EF14, EF21, EF21-SGDM and EF-BV: convergence bounds."""

from __future__ import annotations

import math

from telegrad.theory.bounds.stating import gradient_bound, loss_bound, share_bound, within
from telegrad.theory.step_sizes import error_feedback as steps

__all__ = [
    "ef14",
    "ef21",
    "ef21_pl",
    "ef21_sgd2m_rate",
    "ef21_sgdm",
    "ef21_sgdm_rate",
    "ef_bv",
    "ef_bv_nonconvex",
]


@gradient_bound("ef14", "E‖g‖² ≤ G², one worker", source="C4.3", step=steps.ef14)
def ef14(*, L: float, alpha: float, G2: float, gap: float, T: int, lr: float) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT) + γLG² + 4γ²L²G²(1 − α)/α²"""
    return 2 * gap / (lr * T) + lr * L * G2 + 4 * lr**2 * L**2 * G2 * (1 - alpha) / alpha**2


@gradient_bound("ef21", "nonconvex f", source="C5.3", step=steps.ef21)
def ef21(*, L: float, L_mean: float, alpha: float, gap: float, T: int, lr: float, first_error: float = 0.0) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT) + G⁰/(θT), θ = 1 − √(1 − α), G⁰ the first squared error"""
    within(lr, steps.ef21(L=L, L_mean=L_mean, alpha=alpha))
    return 2 * gap / (lr * T) + first_error / (steps.ef21_theta(alpha) * T)


@loss_bound("ef21", "Polyak-Łojasiewicz f", source="C5.4", step=steps.ef21_pl)
def ef21_pl(
    *,
    L: float,
    L_mean: float,
    mu: float,
    alpha: float,
    gap: float,
    T: int,
    lr: float,
    first_error: float = 0.0,
) -> float:
    """f(x_T) − f* ≤ (1 − γμ)^T(Δ + (γ/θ)G⁰)"""
    within(lr, steps.ef21_pl(L=L, L_mean=L_mean, mu=mu, alpha=alpha))
    return (1 - lr * mu) ** T * (gap + lr / steps.ef21_theta(alpha) * first_error)


@gradient_bound("ef21_sgdm", "nonconvex f, started at exact gradients", source="C6.3", step=steps.ef21_sgdm)
def ef21_sgdm(
    *,
    L: float,
    L_mean: float,
    alpha: float,
    momentum: float,
    workers: int,
    sigma2: float,
    gap: float,
    T: int,
    lr: float,
    first_error: float = 0.0,
) -> float:
    """Mean ‖∇f‖² ≤ (2/(γT))(Δ + (2γ/α)G⁰) + (16η³/α² + 4η²/α + 2η/M)σ²"""
    within(lr, steps.ef21_sgdm(L=L, L_mean=L_mean, alpha=alpha, momentum=momentum))
    noisy = 16 * momentum**3 / alpha**2 + 4 * momentum**2 / alpha + 2 * momentum / workers
    return 2 / (lr * T) * (gap + 2 * lr / alpha * first_error) + noisy * sigma2


@gradient_bound("ef21_sgdm", "the rate at the best momentum, up to a constant", source="C6.4")
def ef21_sgdm_rate(*, L: float, L_mean: float, alpha: float, workers: int, sigma2: float, gap: float, T: int) -> float:
    """L~Δ/(αT) + (LΔσ^⅔/(α^⅔T))^¾ + (LΔσ/(√αT))^⅔ + (LΔσ²/(MT))^½"""
    return double_momentum_rate(L, L_mean, alpha, workers, sigma2, gap, T) + single_momentum_term(
        L, alpha, sigma2, gap, T
    )


@gradient_bound("ef21_sgd2m", "the rate at the best momentum, up to a constant", source="B7.5")
def ef21_sgd2m_rate(*, L: float, L_mean: float, alpha: float, workers: int, sigma2: float, gap: float, T: int) -> float:
    """L~Δ/(αT) + (LΔσ^⅔/(α^⅔T))^¾ + (LΔσ²/(MT))^½: what the MLMC paper's (101) states of EF21-SGDM"""
    return double_momentum_rate(L, L_mean, alpha, workers, sigma2, gap, T)


def double_momentum_rate(
    L: float, L_mean: float, alpha: float, workers: float, sigma2: float, gap: float, steps: float
) -> float:
    """The terms that EF21-SGD2M and EF21-SGDM share (C6.4, B7.5), for any real number of workers and steps."""
    medium = (L * gap * sigma2 ** (1 / 3) / (alpha ** (2 / 3) * steps)) ** 0.75
    return L_mean * gap / (alpha * steps) + medium + math.sqrt(L * gap * sigma2 / (workers * steps))


def single_momentum_term(L: float, alpha: float, sigma2: float, gap: float, steps: float) -> float:
    """(LΔσ/(√αT))^⅔: what EF21-SGDM has in addition, as it averages once only (B7.5)."""
    return (L * gap * math.sqrt(sigma2 / alpha) / steps) ** (2 / 3)


@share_bound("ef_bv", "Polyak-Łojasiewicz f", source="C7.3", step=steps.ef_bv)
def ef_bv(*, L: float, L_mean: float, mu: float, eta: float, spread: float, workers: int, T: int, lr: float) -> float:
    """E Ψ_T/Ψ_0 ≤ max{1 − γμ, (1 + r)/2}^T, Ψ = f − f* + (γ/(2θ*))·mean‖∇f_i − h_i‖²"""
    within(lr, steps.ef_bv(L=L, L_mean=L_mean, eta=eta, spread=spread, workers=workers))
    r = steps.ef_bv_weights(eta=eta, spread=spread, workers=workers)["r"]
    return max(1 - lr * mu, (1 + r) / 2 if r else 0.0) ** T


@gradient_bound("ef_bv", "nonconvex f", source="C7.3", step=steps.ef_bv)
def ef_bv_nonconvex(
    *,
    L: float,
    L_mean: float,
    eta: float,
    spread: float,
    workers: int,
    gap: float,
    T: int,
    lr: float,
    first_error: float = 0.0,
) -> float:
    """Mean ‖∇f‖² ≤ (2/(γT))(Δ + (γ/(2θ*))G⁰)"""
    within(lr, steps.ef_bv(L=L, L_mean=L_mean, eta=eta, spread=spread, workers=workers))
    theta = steps.ef_bv_weights(eta=eta, spread=spread, workers=workers)["theta"]
    return 2 / (lr * T) * (gap + lr / (2 * theta) * first_error)
