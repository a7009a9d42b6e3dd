"""Methods with local steps, Local SGD, Scaffnew, CompressedScaffnew and TAMUNA: convergence bounds."""

from __future__ import annotations

from telegrad.theory.bounds.stating import gradient_bound, share_bound, within
from telegrad.theory.step_sizes import local as steps

__all__ = ["compressed_scaffnew", "local_sgd", "mlmc_local", "scaffnew", "tamuna"]


@gradient_bound(
    "local_sgd", "nonconvex f, H local steps, mean over rounds", source="C20.2 with ω = 0", step=steps.local_sgd
)
def local_sgd(
    *, L: float, workers: int, local_steps: int, sigma2: float, gap: float, T: int, lr: float, xi2: float = 0.0
) -> float:
    """4Δ/(γHT) + 20L²Hγ²(σ² + 6Hξ²) + 4γLσ²/M, T rounds"""
    return mlmc_local(
        L=L, workers=workers, local_steps=local_steps, sigma2=sigma2, gap=gap, T=T, lr=lr, omega=0.0, xi2=xi2
    )


@gradient_bound("mlmc_local", "nonconvex f, H local steps, mean over rounds", source="C20.2", step=steps.mlmc_local)
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
    within(lr, limits["lr"])
    outer = min(lr, limits["outer"])
    drift = 20 * L**2 * local_steps * lr**2 * (sigma2 + 6 * local_steps * xi2)
    noisy = 4 * outer * L * ((1 + omega) * sigma2 + 2 * local_steps * omega * xi2) / workers
    return 4 * gap / (outer * local_steps * T) + drift + noisy


@share_bound("scaffnew", "strongly convex f_i, T local steps", source="C14.3", step=steps.scaffnew)
def scaffnew(*, L_max: float, mu_min: float, T: int) -> float:
    """E Ψ_T/Ψ_0 ≤ max{(1 − γμ)², 1 − p²}^T = (1 − 1/κ)^T"""
    s = steps.scaffnew(L_max=L_max, mu_min=mu_min)
    return max((1 - s["lr"] * mu_min) ** 2, 1 - s["p"] ** 2) ** T


@share_bound(
    "compressed_scaffnew", "strongly convex f_i, T local steps", source="C15.2", step=steps.compressed_scaffnew
)
def compressed_scaffnew(*, L_max: float, mu_min: float, workers: int, owners: int, T: int) -> float:
    """E Ψ_T/Ψ_0 ≤ max{(1 − γμ)², (γL − 1)², 1 − ρ}^T, ρ = p²χ(s − 1)/(M − 1)"""
    s = steps.compressed_scaffnew(L_max=L_max, mu_min=mu_min, workers=workers, owners=owners)
    return max((1 - s["lr"] * mu_min) ** 2, (s["lr"] * L_max - 1) ** 2, 1 - s["rho"]) ** T


@share_bound("tamuna", "strongly convex f_i, T local steps", source="C16.1", step=steps.tamuna)
def tamuna(*, L_max: float, mu_min: float, workers: int, owners: int, T: int) -> float:
    """As compressed_scaffnew"""
    return compressed_scaffnew(L_max=L_max, mu_min=mu_min, workers=workers, owners=owners, T=T)
