"""What theory guarantees after T steps: the convergence bounds of every method.

Every function takes the constants of `telegrad.theory.constants` by name; the first line of its docstring is what it
computes. "Mean ‖∇f‖²" is E over the run and over t = 1 … T; x̄ is the mean iterate. A bound that holds for a range of
step sizes raises `ConfigError` for one outside of it. Numbers in brackets are those of the algorithm reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from telegrad.errors import ConfigError
from telegrad.theory import step_sizes as steps
from telegrad.theory.statements import statement

__all__ = [
    *("adiana", "compressed_scaffnew", "dasha", "dcgd", "diana", "diana_nonconvex", "ef14", "ef21", "ef21_pl"),
    *("ef21_sgdm", "ef21_sgdm_rate", "ef_bv", "ef_bv_nonconvex", "gd", "gd_nonconvex", "local_sgd", "marina"),
    *("marina_permk", "marina_pl", "mlmc_local", "scaffnew", "sgd_convex", "sgd_down", "sgd_nonconvex"),
    *("sgd_paper_convex", "sgd_paper_convex_as_printed", "sgd_paper_convex_at", "sgd_paper_convex_unlike"),
    *("sgd_paper_convex_unlike_as_printed", "sgd_paper_nonconvex", "sgd_paper_nonconvex_as_printed"),
    *("sgd_paper_nonconvex_at", "sgd_paper_nonconvex_unlike", "sgd_paper_nonconvex_unlike_as_printed"),
    *("sgd_strongly_convex", "sgd_tuned_convex", "sgd_tuned_nonconvex", "shadowheart", "sign_majority", "tamuna"),
    "vr_marina",
]


def _bound(method: str, case: str, unit: str, source: str, step: Callable[..., Any] | None = None) -> Any:
    return statement(method, "bound", case, unit, source, step)


_loss = partial(_bound, unit="loss")
_gradient = partial(_bound, unit="gradient²")
_length = partial(_bound, unit="length²")
_share = partial(_bound, unit="1")


def _within(lr: float, limit: float) -> None:
    if lr > limit * (1 + 1e-12):
        raise ConfigError(f"lr={lr:g} is more than theory allows here: step sizes up to {limit:.6g} are covered")


@_share("gd", "strongly convex f", source="F2", step=steps.gd)
def gd(*, L: float, mu: float, T: int, lr: float) -> float:
    """(f(x_T) − f*)/Δ ≤ (1 − γμ)^T"""
    _within(lr, steps.gd(L=L))
    return (1 - lr * mu) ** T


@_gradient("gd", "nonconvex f", source="F2", step=steps.gd)
def gd_nonconvex(*, L: float, gap: float, T: int, lr: float) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT)"""
    _within(lr, steps.gd(L=L))
    return 2 * gap / (lr * T)


@_loss("sgd", "convex f", source="B7.4", step=steps.sgd_convex)
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
    _within(lr, steps.sgd(L=L, workers=workers, omega=omega))
    return distance**2 / (2 * lr * T) + lr * steps.noise(omega, sigma2, xi2) / (2 * workers)


@_loss("sgd", "convex f, at the best step", source="B7.4")
def sgd_tuned_convex(
    *, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float = 0.0, xi2: float = 0.0
) -> float:
    """E f(x̄) − f* ≤ (1 + ω/M)LD²/(2T) + D√(S'/(MT))"""
    noisy = math.sqrt(steps.noise(omega, sigma2, xi2) / (workers * T))
    return (1 + omega / workers) * L * distance**2 / (2 * T) + distance * noisy


@_gradient("sgd", "nonconvex f", source="B7.4", step=steps.sgd_nonconvex)
def sgd_nonconvex(
    *, L: float, workers: int, sigma2: float, gap: float, T: int, lr: float, omega: float = 0.0, xi2: float = 0.0
) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT) + γLS'/M, S' = (1 + ω)σ² + ωξ²"""
    _within(lr, steps.sgd(L=L, workers=workers, omega=omega))
    return 2 * gap / (lr * T) + lr * L * steps.noise(omega, sigma2, xi2) / workers


@_gradient("sgd", "nonconvex f, at the best step", source="B7.4")
def sgd_tuned_nonconvex(
    *, L: float, workers: int, sigma2: float, gap: float, T: int, omega: float = 0.0, xi2: float = 0.0
) -> float:
    """Mean ‖∇f‖² ≤ 2(1 + ω/M)LΔ/T + 2√(2LΔS'/(MT))"""
    noisy = math.sqrt(2 * L * gap * steps.noise(omega, sigma2, xi2) / (workers * T))
    return 2 * (1 + omega / workers) * L * gap / T + 2 * noisy


@_length("sgd", "strongly convex f", source="B7.4", step=steps.sgd)
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
    _within(lr, steps.sgd(L=L, workers=workers, omega=omega))
    noisy = steps.noise(omega, sigma2, xi2)
    return (1 - lr * mu) ** T * distance**2 + lr * noisy / (mu * workers)


@_length("sgd", "strongly convex f, workers however unlike (DCGD)", source="B7.4; F2", step=steps.sgd_any_data)
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
    _within(lr, steps.sgd_any_data(L=L, L_max=L_max, workers=workers, omega=omega))
    stays = (1 + omega) * sigma2 + 2 * omega * optimum_energy
    return (1 - lr * mu) ** T * distance**2 + lr * stays / (mu * workers)


@_gradient("sgd", "the server compresses too", source="C2.2", step=steps.sgd_down)
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


@_loss("sgd", "the MLMC paper: convex, alike workers, any step", source="B7.2 (88)", step=steps.sgd_paper_convex)
def sgd_paper_convex_at(*, workers: int, sigma2: float, distance: float, T: int, omega: float, lr: float) -> float:
    """Mean f − f* ≤ D²/(γT) + 4γ(2ω + 1)σ²/M"""
    return distance**2 / (lr * T) + 4 * lr * (2 * omega + 1) * sigma2 / workers


def _paper_convex(
    constant: float, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float
) -> float:
    noisy = math.sqrt(sigma2 * (2 * omega + 1)) * distance / math.sqrt(workers * T)
    return 2 * distance**2 * L / T + 16 * omega * distance**2 * L / (workers * T) + constant * noisy


@_loss("sgd", "the MLMC paper, as printed: convex, alike workers, best step", source="B7.2 (89)")
def sgd_paper_convex_as_printed(
    *, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float
) -> float:
    """2D²L/T + 16ωD²L/(MT) + 2σ√(2ω + 1)D/√(MT): its own algebra gives 4 for the last 2"""
    return _paper_convex(2.0, L, workers, sigma2, distance, T, omega)


@_loss("sgd", "the MLMC paper, corrected: convex, alike workers, best step", source="B7.2 (89)")
def sgd_paper_convex(*, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float) -> float:
    """Mean f − f* ≤ 2D²L/T + 16ωD²L/(MT) + 4σ√(2ω + 1)D/√(MT)"""
    return _paper_convex(4.0, L, workers, sigma2, distance, T, omega)


@_gradient(
    "sgd", "the MLMC paper: nonconvex, alike workers, any step", source="B7.2 (92)", step=steps.sgd_paper_nonconvex
)
def sgd_paper_nonconvex_at(
    *, L: float, workers: int, sigma2: float, gap: float, T: int, omega: float, lr: float
) -> float:
    """Mean ‖∇f‖² ≤ 4Δ/(γT) + 4γ(2ω + 1)σ²L/M"""
    return 4 * gap / (lr * T) + 4 * lr * (2 * omega + 1) * sigma2 * L / workers


@_gradient("sgd", "the MLMC paper, as printed: nonconvex, alike workers, best step", source="B7.2 (93); B8")
def sgd_paper_nonconvex_as_printed(*, L: float, workers: int, sigma2: float, gap: float, T: int, omega: float) -> float:
    """4ΔL/T + 32ωΔL/(MT) + 8σ√((2ω + 1)L)/√(MT): the last term lacks √Δ"""
    first = 4 * gap * L / T + 32 * omega * gap * L / (workers * T)
    return first + 8 * math.sqrt(sigma2 * (2 * omega + 1) * L / (workers * T))


@_gradient("sgd", "the MLMC paper, corrected: nonconvex, alike workers, best step", source="B7.2 (93)")
def sgd_paper_nonconvex(*, L: float, workers: int, sigma2: float, gap: float, T: int, omega: float) -> float:
    """Mean ‖∇f‖² ≤ 4ΔL/T + 32ωΔL/(MT) + 8σ√((2ω + 1)LΔ)/√(MT)"""
    first = 4 * gap * L / T + 32 * omega * gap * L / (workers * T)
    return first + 8 * math.sqrt(sigma2 * (2 * omega + 1) * L * gap / (workers * T))


def _paper_convex_unlike(
    factor: float, last: float, L: float, workers: int, stays: float, distance: float, T: int, omega: float
) -> float:
    first = 2 * distance**2 * L / T + factor * omega * distance**2 * L / (workers * T)
    return first + last * distance * math.sqrt(stays / (workers * T))


@_loss("sgd", "the MLMC paper, as printed: convex, unlike workers, best step", source="B7.3 (118)")
def sgd_paper_convex_unlike_as_printed(
    *, L: float, workers: int, sigma2: float, xi2: float, distance: float, T: int, omega: float
) -> float:
    """2D²L/T + 16ωD²L/(MT) + D√S/√(MT): its own algebra gives 24 for 16 and 2 for the last 1"""
    stays = steps.unlike_noise(omega, sigma2, xi2)
    return _paper_convex_unlike(16, 1, L, workers, stays, distance, T, omega)


@_loss("sgd", "the MLMC paper, corrected: convex, unlike workers, best step", source="B7.3")
def sgd_paper_convex_unlike(
    *, L: float, workers: int, sigma2: float, xi2: float, distance: float, T: int, omega: float
) -> float:
    """Mean f − f* ≤ 2D²L/T + 24ωD²L/(MT) + 2D√S/√(MT), S = 4(3ω + 1)σ² + 12ωξ²"""
    stays = steps.unlike_noise(omega, sigma2, xi2)
    return _paper_convex_unlike(24, 2, L, workers, stays, distance, T, omega)


@_gradient("sgd", "the MLMC paper, as printed: nonconvex, unlike workers, best step", source="B7.3 (123); B8")
def sgd_paper_nonconvex_unlike_as_printed(
    *, L: float, workers: int, sigma2: float, xi2: float, gap: float, T: int, omega: float
) -> float:
    """4ΔL/T + 48ωΔL/(MT) + 2√(SL)/√(MT): half the constant, and no √Δ"""
    stays = steps.unlike_noise(omega, sigma2, xi2)
    first = 4 * gap * L / T + 48 * omega * gap * L / (workers * T)
    return first + 2 * math.sqrt(stays * L / (workers * T))


@_gradient("sgd", "the MLMC paper, corrected: nonconvex, unlike workers, best step", source="B7.3")
def sgd_paper_nonconvex_unlike(
    *, L: float, workers: int, sigma2: float, xi2: float, gap: float, T: int, omega: float
) -> float:
    """Mean ‖∇f‖² ≤ 4ΔL/T + 48ωΔL/(MT) + 4√(ΔSL)/√(MT), S = 4(3ω + 1)σ² + 12ωξ²"""
    stays = steps.unlike_noise(omega, sigma2, xi2)
    first = 4 * gap * L / T + 48 * omega * gap * L / (workers * T)
    return first + 4 * math.sqrt(gap * stays * L / (workers * T))


@_bound(
    "sign_majority", "coordinate-wise smooth f, unimodal symmetric noise, batch T (N = T² gradients)",
    "gradient²", "C3.1", steps.sign_majority,
)  # fmt: skip
def sign_majority(*, L_sum: float, gap: float, sigma_sum: float, T: int, workers: int = 1) -> float:
    """(Mean ‖g‖₁)² ≤ (1/T)(√‖L⃗‖₁(Δ + ½) + (2/√M)‖σ⃗‖₁)², at γ = 1/√(‖L⃗‖₁T)"""
    return (math.sqrt(L_sum) * (gap + 0.5) + 2 / math.sqrt(workers) * sigma_sum) ** 2 / T


@_gradient("ef14", "E‖g‖² ≤ G², one worker", source="C4.3", step=steps.ef14)
def ef14(*, L: float, alpha: float, G2: float, gap: float, T: int, lr: float) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT) + γLG² + 4γ²L²G²(1 − α)/α²"""
    return 2 * gap / (lr * T) + lr * L * G2 + 4 * lr**2 * L**2 * G2 * (1 - alpha) / alpha**2


@_gradient("ef21", "nonconvex f", source="C5.3", step=steps.ef21)
def ef21(*, L: float, L_mean: float, alpha: float, gap: float, T: int, lr: float, first_error: float = 0.0) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT) + G⁰/(θT), θ = 1 − √(1 − α), G⁰ the first squared error"""
    _within(lr, steps.ef21(L=L, L_mean=L_mean, alpha=alpha))
    return 2 * gap / (lr * T) + first_error / ((1 - math.sqrt(1 - alpha)) * T)


@_loss("ef21", "Polyak-Łojasiewicz f", source="C5.4", step=steps.ef21_pl)
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
    _within(lr, steps.ef21_pl(L=L, L_mean=L_mean, mu=mu, alpha=alpha))
    return (1 - lr * mu) ** T * (gap + lr / (1 - math.sqrt(1 - alpha)) * first_error)


@_gradient("ef21_sgdm", "nonconvex f, started at exact gradients", source="C6.3", step=steps.ef21_sgdm)
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
    _within(lr, steps.ef21_sgdm(L=L, L_mean=L_mean, alpha=alpha, momentum=momentum))
    noisy = 16 * momentum**3 / alpha**2 + 4 * momentum**2 / alpha + 2 * momentum / workers
    return 2 / (lr * T) * (gap + 2 * lr / alpha * first_error) + noisy * sigma2


@_gradient("ef21_sgdm", "the rate at the best momentum, up to a constant", source="C6.4")
def ef21_sgdm_rate(*, L: float, L_mean: float, alpha: float, workers: int, sigma2: float, gap: float, T: int) -> float:
    """L~Δ/(αT) + (LΔσ^⅔/(α^⅔T))^¾ + (LΔσ/(√αT))^⅔ + (LΔσ²/(MT))^½"""
    sigma = math.sqrt(sigma2)
    return (
        L_mean * gap / (alpha * T)
        + (L * gap * sigma ** (2 / 3) / (alpha ** (2 / 3) * T)) ** 0.75
        + (L * gap * sigma / (math.sqrt(alpha) * T)) ** (2 / 3)
        + math.sqrt(L * gap * sigma2 / (workers * T))
    )


@_share("ef_bv", "Polyak-Łojasiewicz f", source="C7.3", step=steps.ef_bv)
def ef_bv(*, L: float, L_mean: float, mu: float, eta: float, spread: float, workers: int, T: int, lr: float) -> float:
    """E Ψ_T/Ψ_0 ≤ max{1 − γμ, (1 + r)/2}^T, Ψ = f − f* + (γ/(2θ*))·mean‖∇f_i − h_i‖²"""
    _within(lr, steps.ef_bv(L=L, L_mean=L_mean, eta=eta, spread=spread, workers=workers))
    r = steps.ef_bv_weights(eta=eta, spread=spread, workers=workers)["r"]
    return max(1 - lr * mu, (1 + r) / 2 if r else 0.0) ** T


@_gradient("ef_bv", "nonconvex f", source="C7.3", step=steps.ef_bv)
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
    _within(lr, steps.ef_bv(L=L, L_mean=L_mean, eta=eta, spread=spread, workers=workers))
    theta = steps.ef_bv_weights(eta=eta, spread=spread, workers=workers)["theta"]
    return 2 / (lr * T) * (gap + lr / (2 * theta) * first_error)


@_length("diana", "strongly convex f, each f_i convex", source="C8.2", step=steps.diana)
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
    _within(lr, steps.diana(L=L, L_max=L_max, omega=omega, workers=workers))
    alpha = 1 / (1 + omega)
    first = distance**2 + 4 * omega * lr**2 / (workers * alpha) * optimum_energy
    return max(1 - lr * mu, 1 - alpha / 2) ** T * first


@_gradient("diana", "nonconvex f", source="C8.3", step=steps.diana_nonconvex)
def diana_nonconvex(
    *, L: float, L_mean: float, omega: float, workers: int, gap: float, T: int, lr: float, first_error: float = 0.0
) -> float:
    """Mean ‖∇f‖² ≤ (2/(γT))(Δ + (2Lγ²ω(1 + ω)/M)·H⁰), H⁰ = mean‖h_i − ∇f_i‖² at the start"""
    _within(lr, steps.diana_nonconvex(L=L, L_mean=L_mean, omega=omega, workers=workers))
    return 2 / (lr * T) * (gap + 2 * L * lr**2 * omega * (1 + omega) / workers * first_error)


@_share("adiana", "rounds for one factor of 1/e in the error, up to a constant", source="C9.2")
def adiana(*, L_max: float, mu: float, omega: float, workers: int) -> float:
    """M ≤ ω: ω(1 + √(κ/M)); M > ω: ω + √κ + √(√(ω/M)ωκ), κ = L_max/μ"""
    kappa = L_max / mu
    if workers <= omega:
        return omega * (1 + math.sqrt(kappa / workers))
    return omega + math.sqrt(kappa) + math.sqrt(math.sqrt(omega / workers) * omega * kappa)


@_gradient("marina", "nonconvex f", source="C10.2", step=steps.marina)
def marina(*, L: float, L_mean: float, omega: float, workers: int, p: float, gap: float, T: int, lr: float) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT)"""
    _within(lr, steps.marina(L=L, L_mean=L_mean, omega=omega, workers=workers, p=p))
    return 2 * gap / (lr * T)


@_loss("marina", "Polyak-Łojasiewicz f", source="C10.2", step=steps.marina_pl)
def marina_pl(
    *, L: float, L_mean: float, mu: float, omega: float, workers: int, p: float, gap: float, T: int, lr: float
) -> float:
    """E f(x_T) − f* ≤ (1 − γμ)^TΔ"""
    _within(lr, steps.marina_pl(L=L, L_mean=L_mean, mu=mu, omega=omega, workers=workers, p=p))
    return (1 - lr * mu) ** T * gap


@_gradient("vr_marina", "nonconvex f", source="C10.4", step=steps.vr_marina)
def vr_marina(*, gap: float, T: int, lr: float) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT)"""
    return 2 * gap / (lr * T)


@_gradient("marina_permk", "nonconvex f", source="C11.1", step=steps.marina_permk)
def marina_permk(*, L: float, L_spread: float, workers: int, d: int, p: float, gap: float, T: int, lr: float) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT)"""
    _within(lr, steps.marina_permk(L=L, L_spread=L_spread, workers=workers, d=d, p=p))
    return 2 * gap / (lr * T)


@_gradient("dasha", "nonconvex f, started at exact gradients", source="C12.3", step=steps.dasha)
def dasha(*, L: float, L_mean: float, omega: float, workers: int, gap: float, T: int, lr: float) -> float:
    """Mean ‖∇f‖² ≤ 2Δ/(γT)"""
    _within(lr, steps.dasha(L=L, L_mean=L_mean, omega=omega, workers=workers))
    return 2 * gap / (lr * T)


@_gradient("local_sgd", "nonconvex f, H local steps, mean over rounds", source="C20.2 with ω = 0", step=steps.local_sgd)
def local_sgd(
    *, L: float, workers: int, local_steps: int, sigma2: float, gap: float, T: int, lr: float, xi2: float = 0.0
) -> float:
    """4Δ/(γHT) + 20L²Hγ²(σ² + 6Hξ²) + 4γLσ²/M, T rounds"""
    return mlmc_local(
        L=L, workers=workers, local_steps=local_steps, sigma2=sigma2, gap=gap, T=T, lr=lr, omega=0.0, xi2=xi2
    )


@_gradient("mlmc_local", "nonconvex f, H local steps, mean over rounds", source="C20.2", step=steps.mlmc_local)
def mlmc_local(
    *,
    L: float,
    workers: int,
    local_steps: int,
    sigma2: float,
    gap: float,
    T: int,
    lr: float,
    omega: float,
    xi2: float = 0.0,
) -> float:
    """4Δ/(aHT) + 20L²Hγ²(σ² + 6Hξ²) + 4aL(1 + ω)σ²/M + 8aLHωξ²/M, T rounds; a the lesser of γ and theory's"""
    limits = steps.mlmc_local(L=L, omega=omega, workers=workers, local_steps=local_steps)
    _within(lr, limits["lr"])
    outer = min(lr, limits["outer"])
    drift = 20 * L**2 * local_steps * lr**2 * (sigma2 + 6 * local_steps * xi2)
    noisy = 4 * outer * L * ((1 + omega) * sigma2 + 2 * local_steps * omega * xi2) / workers
    return 4 * gap / (outer * local_steps * T) + drift + noisy


@_share("scaffnew", "strongly convex f_i, T local steps", source="C14.3", step=steps.scaffnew)
def scaffnew(*, L_max: float, mu_min: float, T: int) -> float:
    """E Ψ_T/Ψ_0 ≤ max{(1 − γμ)², 1 − p²}^T = (1 − 1/κ)^T"""
    s = steps.scaffnew(L_max=L_max, mu_min=mu_min)
    return max((1 - s["lr"] * mu_min) ** 2, 1 - s["p"] ** 2) ** T


@_share("compressed_scaffnew", "strongly convex f_i, T local steps", source="C15.2", step=steps.compressed_scaffnew)
def compressed_scaffnew(*, L_max: float, mu_min: float, workers: int, owners: int, T: int) -> float:
    """E Ψ_T/Ψ_0 ≤ max{(1 − γμ)², (γL − 1)², 1 − ρ}^T, ρ = p²χ(s − 1)/(M − 1)"""
    s = steps.compressed_scaffnew(L_max=L_max, mu_min=mu_min, workers=workers, owners=owners)
    return max((1 - s["lr"] * mu_min) ** 2, (s["lr"] * L_max - 1) ** 2, 1 - s["rho"]) ** T


@_share("tamuna", "strongly convex f_i, T local steps", source="C16.1", step=steps.tamuna)
def tamuna(*, L_max: float, mu_min: float, workers: int, owners: int, T: int) -> float:
    """As compressed_scaffnew"""
    return compressed_scaffnew(L_max=L_max, mu_min=mu_min, workers=workers, owners=owners, T=T)


@_share("shadowheart", "nonconvex f, alike data: iterations to E‖∇f‖² ≤ ε", source="C17.2")
def shadowheart(*, L: float, gap: float, accuracy: float) -> float:
    """8LΔ/ε, each of at most 2t* seconds (see `telegrad.theory.equilibrium`)"""
    return 8 * L * gap / accuracy
