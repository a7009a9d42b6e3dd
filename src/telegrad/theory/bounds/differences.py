"""Methods that send compressed gradient differences, DIANA, ADIANA, MARINA and DASHA: convergence bounds."""

from __future__ import annotations

import math

from telegrad.theory.bounds.stating import gradient_bound, length_bound, loss_bound, share_bound, within
from telegrad.theory.step_sizes import differences as steps

__all__ = ["adiana", "dasha", "diana", "diana_nonconvex", "marina", "marina_permk", "marina_pl", "vr_marina"]


@length_bound("diana", "strongly convex f, each f_i convex", source="C8.2", step=steps.diana)
def diana(
    *,
    L: float,
    L_max: float,
    mu: float,
    omega: float,
    workers: int,
    distance: float,
    T: int,
    lr: float,
    optimum_energy: float = 0.0,
) -> float:
    """E‖x_T − x*‖² ≤ max{1 − γμ, 1 − α/2}^T(D² + (4ωγ²/(Mα))·mean‖∇f_i(x*)‖²), α = 1/(1 + ω), h_i = 0 at first"""
    within(lr, steps.diana(L=L, L_max=L_max, omega=omega, workers=workers))
    alpha = 1 / (1 + omega)
    first = distance**2 + 4 * omega * lr**2 / (workers * alpha) * optimum_energy
    return max(1 - lr * mu, 1 - alpha / 2) ** T * first


@gradient_bound("diana", "nonconvex f", source="C8.3", step=steps.diana_nonconvex)
def diana_nonconvex(
    *, L: float, L_mean: float, omega: float, workers: int, gap: float, T: int, lr: float, first_error: float = 0.0
) -> float:
    """Mean ‖∇f‖² ≤ (2/(γT))(Δ + (2Lγ²ω(1 + ω)/M)·H⁰), H⁰ = mean‖h_i − ∇f_i‖² at the start"""
    within(lr, steps.diana_nonconvex(L=L, L_mean=L_mean, omega=omega, workers=workers))
    return 2 / (lr * T) * (gap + 2 * L * lr**2 * omega * (1 + omega) / workers * first_error)


@share_bound("adiana", "rounds for one factor of 1/e in the error, up to a constant", source="C9.2")
def adiana(*, L_max: float, mu: float, omega: float, workers: int) -> float:
    """M ≤ ω: ω(1 + √(κ/M)); M > ω: ω + √κ + √(√(ω/M)ωκ), κ = L_max/μ"""
    kappa = L_max / mu
    if workers <= omega:
        return omega * (1 + math.sqrt(kappa / workers))
    return omega + math.sqrt(kappa) + math.sqrt(math.sqrt(omega / workers) * omega * kappa)


@gradient_bound("marina", "nonconvex f", source="C10.2", step=steps.marina)
def marina(*, L: float, L_mean: float, omega: float, workers: int, p: float, gap: float, T: int, lr: float) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT)"""
    within(lr, steps.marina(L=L, L_mean=L_mean, omega=omega, workers=workers, p=p))
    return 2 * gap / (lr * T)


@loss_bound("marina", "Polyak-Łojasiewicz f", source="C10.2", step=steps.marina_pl)
def marina_pl(
    *, L: float, L_mean: float, mu: float, omega: float, workers: int, p: float, gap: float, T: int, lr: float
) -> float:
    """E f(x_T) − f* ≤ (1 − γμ)^TΔ"""
    within(lr, steps.marina_pl(L=L, L_mean=L_mean, mu=mu, omega=omega, workers=workers, p=p))
    return (1 - lr * mu) ** T * gap


@gradient_bound("vr_marina", "nonconvex f", source="C10.4", step=steps.vr_marina)
def vr_marina(
    *,
    L: float,
    L_mean: float,
    L_sample: float,
    omega: float,
    workers: int,
    p: float,
    batch: int,
    gap: float,
    T: int,
    lr: float,
) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT)"""
    within(
        lr,
        steps.vr_marina(L=L, L_mean=L_mean, L_sample=L_sample, omega=omega, workers=workers, p=p, batch=batch),
    )
    return 2 * gap / (lr * T)


@gradient_bound("marina_permk", "nonconvex f", source="C11.1", step=steps.marina_permk)
def marina_permk(*, L: float, L_spread: float, workers: int, d: int, p: float, gap: float, T: int, lr: float) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT)"""
    within(lr, steps.marina_permk(L=L, L_spread=L_spread, workers=workers, d=d, p=p))
    return 2 * gap / (lr * T)


@gradient_bound("dasha", "nonconvex f, started at exact gradients", source="C12.3", step=steps.dasha)
def dasha(*, L: float, L_mean: float, omega: float, workers: int, gap: float, T: int, lr: float) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT)"""
    within(lr, steps.dasha(L=L, L_mean=L_mean, omega=omega, workers=workers))
    return 2 * gap / (lr * T)
