"""SGD, plain and with an unbiased compressor: convergence bounds, gradient descent included."""

from __future__ import annotations

import math

from telegrad.errors import ConfigError
from telegrad.theory.bounds.stating import gradient_bound, length_bound, loss_bound, share_bound, within
from telegrad.theory.step_sizes import gradient_descent as steps

__all__ = [
    "dcgd",
    "gd",
    "gd_nonconvex",
    "sgd_convex",
    "sgd_down",
    "sgd_nonconvex",
    "sgd_strongly_convex",
    "sgd_tuned_convex",
    "sgd_tuned_nonconvex",
]


@share_bound("gd", "strongly convex f", source="F2", step=steps.gd)
def gd(*, L: float, mu: float, T: int, lr: float) -> float:
    """(f(x_T) − f*)/Δ ≤ (1 − γμ)^T"""
    within(lr, steps.gd(L=L))
    return (1 - lr * mu) ** T


@gradient_bound("gd", "nonconvex f", source="F2", step=steps.gd)
def gd_nonconvex(*, L: float, gap: float, T: int, lr: float) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT)"""
    within(lr, steps.gd(L=L))
    return 2 * gap / (lr * T)


@loss_bound("sgd", "convex f", source="B7.4", step=steps.sgd_convex)
def sgd_convex(
    *,
    L: float,
    workers: int,
    sigma2: float,
    distance: float,
    T: int,
    lr: float,
    omega: float = 0.0,
    xi2: float = 0.0,
) -> float:
    """E f(x̄) − f* ≤ D²/(2γT) + γS'/(2M), S' = (1 + ω)σ² + ωξ²"""
    within(lr, steps.sgd(L=L, workers=workers, omega=omega))
    return distance**2 / (2 * lr * T) + lr * steps.noise(omega, sigma2, xi2) / (2 * workers)


@loss_bound("sgd", "convex f, at the best step", source="B7.4")
def sgd_tuned_convex(
    *, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float = 0.0, xi2: float = 0.0
) -> float:
    """E f(x̄) − f* ≤ (1 + ω/M)LD²/(2T) + D√(S'/(MT))"""
    noisy = math.sqrt(steps.noise(omega, sigma2, xi2) / (workers * T))
    return (1 + omega / workers) * L * distance**2 / (2 * T) + distance * noisy


@gradient_bound("sgd", "nonconvex f", source="B7.4", step=steps.sgd_nonconvex)
def sgd_nonconvex(
    *, L: float, workers: int, sigma2: float, gap: float, T: int, lr: float, omega: float = 0.0, xi2: float = 0.0
) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT) + γLS'/M, S' = (1 + ω)σ² + ωξ²"""
    within(lr, steps.sgd(L=L, workers=workers, omega=omega))
    return 2 * gap / (lr * T) + lr * L * steps.noise(omega, sigma2, xi2) / workers


@gradient_bound("sgd", "nonconvex f, at the best step", source="B7.4")
def sgd_tuned_nonconvex(
    *, L: float, workers: int, sigma2: float, gap: float, T: int, omega: float = 0.0, xi2: float = 0.0
) -> float:
    """Mean ‖∇f‖² ≤ 2(1 + ω/M)LΔ/T + 2√(2LΔS'/(MT))"""
    noisy = math.sqrt(2 * L * gap * steps.noise(omega, sigma2, xi2) / (workers * T))
    return 2 * (1 + omega / workers) * L * gap / T + 2 * noisy


@length_bound("sgd", "strongly convex f", source="B7.4", step=steps.sgd)
def sgd_strongly_convex(
    *,
    L: float,
    mu: float,
    workers: int,
    sigma2: float,
    distance: float,
    T: int,
    lr: float,
    omega: float = 0.0,
    xi2: float = 0.0,
) -> float:
    """E‖x_(T+1) − x*‖² ≤ (1 − γμ)^T D² + γS'/(μM), S' = (1 + ω)σ² + ωξ²"""
    within(lr, steps.sgd(L=L, workers=workers, omega=omega))
    noisy = steps.noise(omega, sigma2, xi2)
    return (1 - lr * mu) ** T * distance**2 + lr * noisy / (mu * workers)


@length_bound("sgd", "strongly convex f, workers however unlike (DCGD)", source="B7.4; F2", step=steps.sgd_any_data)
def dcgd(
    *,
    L: float,
    L_max: float,
    mu: float,
    workers: int,
    omega: float,
    optimum_energy: float,
    distance: float,
    T: int,
    lr: float,
    sigma2: float = 0.0,
) -> float:
    """E‖x − x*‖² ≤ (1 − γμ)^T D² + (γ/(μM))((1 + ω)σ² + 2ω·mean‖∇f_i(x*)‖²)"""
    within(lr, steps.sgd_any_data(L=L, L_max=L_max, workers=workers, omega=omega))
    stays = (1 + omega) * sigma2 + 2 * omega * optimum_energy
    return (1 - lr * mu) ** T * distance**2 + lr * stays / (mu * workers)


@gradient_bound("sgd", "the server compresses too", source="C2.2", step=steps.sgd_down)
def sgd_down(
    *,
    L: float,
    workers: int,
    sigma2: float,
    gap: float,
    T: int,
    lr: float,
    omega: float,
    omega_down: float,
    xi2: float = 0.0,
) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γ(2 − bLγ)T) + aLγ/(2 − bLγ), a and b as in the step size"""
    a = (1 + omega_down) * steps.noise(omega, sigma2, xi2) / workers
    b = (1 + omega_down) * (1 + omega / workers)
    if b * L * lr >= 2:
        raise ConfigError(f"lr={lr:g} is more than theory allows here: step sizes below {2 / (b * L):.6g} are covered")
    slack = 2 - b * L * lr
    return 2 * gap / (lr * slack * T) + a * L * lr / slack
