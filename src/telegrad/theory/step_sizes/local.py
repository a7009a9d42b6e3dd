"""Methods with local steps, Local SGD, Scaffnew, CompressedScaffnew and TAMUNA: step sizes."""

from __future__ import annotations

import math

from telegrad.theory.step_sizes.stating import over, step_size

__all__ = ["compressed_scaffnew", "local_sgd", "mlmc_local", "scaffnew", "tamuna"]


@step_size("local_sgd", case="nonconvex f, H local steps", source="C13; C20.2 with ω = 0")
def local_sgd(*, L: float, local_steps: int) -> float:
    """γ ≤ 1/(16LH)"""
    return 1 / (16 * L * local_steps)


@step_size("mlmc_local", case="nonconvex f, H local steps: the local and the outer step", source="C20.2")
def mlmc_local(*, L: float, omega: float, workers: int, local_steps: int) -> dict[str, float]:
    """local γ ≤ 1/(16LH); outer a ≤ min{1/(2LH), M/(16LωH)}"""
    outer = min(1 / (2 * L * local_steps), over(workers, 16 * L * omega * local_steps))
    return {"lr": 1 / (16 * L * local_steps), "outer": outer}


@step_size("scaffnew", case="strongly convex f_i", source="C14.3")
def scaffnew(*, L_max: float, mu_min: float) -> dict[str, float]:
    """γ = 1/L_max, p = 1/√κ, κ = L_max/min μ_i"""
    return {"lr": 1 / L_max, "p": math.sqrt(mu_min / L_max)}


@step_size("compressed_scaffnew", case="strongly convex f_i, s owners of a coordinate", source="C15.3")
def compressed_scaffnew(*, L_max: float, mu_min: float, workers: int, owners: int) -> dict[str, float]:
    """γ = 2/(L_max + min μ_i), p = min{1, √(M/(sκ))}, χ = M(s − 1)/(s(M − 1))"""
    p = min(1.0, math.sqrt(workers * mu_min / (owners * L_max)))
    chi = workers * (owners - 1) / (owners * (workers - 1))
    return {"lr": 2 / (L_max + mu_min), "p": p, "chi": chi, "rho": p**2 * chi * (owners - 1) / (workers - 1)}


@step_size("tamuna", case="strongly convex f_i, c of M workers a round, s owners", source="C16.2")
def tamuna(*, L_max: float, mu_min: float, workers: int, owners: int) -> dict[str, float]:
    """As compressed_scaffnew, M and not c in p, χ and ρ"""
    return compressed_scaffnew(L_max=L_max, mu_min=mu_min, workers=workers, owners=owners)
