"""Methods that send compressed gradient differences, DIANA, ADIANA, MARINA and DASHA: step sizes."""

from __future__ import annotations

import math

from telegrad.theory.step_sizes.stating import over, parameter, step_size

__all__ = [
    "adiana",
    "dasha",
    "dasha_as_printed",
    "dasha_mvr",
    "dasha_official",
    "dasha_page",
    "diana",
    "diana_frontier",
    "diana_nonconvex",
    "l_svrg",
    "marina",
    "marina_frontier",
    "marina_permk",
    "marina_pl",
    "vr_marina",
]


@step_size("diana", case="strongly convex f, each f_i convex, shift rate 1/(1 + ω)", source="C8.2")
def diana(*, L: float, L_max: float, omega: float, workers: int) -> float:
    """γ ≤ 1/(L + 6ωL_max/M)"""
    return 1 / (L + 6 * omega * L_max / workers)


@step_size("diana", case="nonconvex f, shift rate 1/(1 + ω)", source="C8.3")
def diana_nonconvex(*, L: float, L_mean: float, omega: float, workers: int) -> float:
    """γ ≤ min{1/(2L), √M/(√(12ω)(1 + ω)L~)}"""
    return min(1 / (2 * L), over(math.sqrt(workers), math.sqrt(12 * omega) * (1 + omega) * L_mean))


@parameter("diana", case="exact limit of γμ: alike scalar quadratics, half-dropout (ω = 1)", source="C8.4")
def diana_frontier(*, workers: int) -> float:
    """s = (M − 4 + √(9M² + 8M + 16))/(2(M + 2)): stable for 0 < γμ < s"""
    n = workers
    return (n - 4 + math.sqrt(9 * n**2 + 8 * n + 16)) / (2 * (n + 2))


@step_size("adiana", case="all parameters", source="C9.2")
def adiana(*, L_max: float, mu: float, omega: float, workers: int) -> dict[str, float]:
    """η = min{1/(2L), M/(64ω(2p(1 + ω) + 1)²L)}, and p, θ₁, θ₂, γ, β, shift rate α; L = L_max"""
    root = math.sqrt(over(workers, 32 * omega)) - 1
    p = min(1.0, max(1.0, root) / (2 * (1 + omega)))
    step = min(1 / (2 * L_max), over(workers, 64 * omega * (2 * p * (omega + 1) + 1) ** 2 * L_max))
    theta = min(0.25, math.sqrt(step * mu / p))
    outer = step / (2 * (theta + step * mu))
    return {
        "lr": step,
        "p": p,
        "theta1": theta,
        "theta2": 0.5,
        "gamma": outer,
        "beta": 1 - outer * mu,
        "alpha": 1 / (1 + omega),
    }


@step_size("marina", case="nonconvex f", source="C10.2")
def marina(*, L: float, L_mean: float, omega: float, workers: int, p: float) -> float:
    """γ ≤ 1/(L + L~√((1 − p)ω/(pM)))"""
    return 1 / (L + L_mean * math.sqrt((1 - p) * omega / (p * workers)))


@step_size("marina", case="Polyak-Łojasiewicz f", source="C10.2")
def marina_pl(*, L: float, L_mean: float, mu: float, omega: float, workers: int, p: float) -> float:
    """γ ≤ min{1/(L + L~√(2(1 − p)ω/(pM))), p/(2μ)}"""
    return min(1 / (L + L_mean * math.sqrt(2 * (1 - p) * omega / (p * workers))), p / (2 * mu))


@parameter("marina", case="exact limit of γμ: alike scalar quadratics, half-dropout, p = ½", source="C10.5")
def marina_frontier(*, workers: int) -> float:
    """s = (M + √(9M² + 16M))/(2(M + 2)): stable for 0 < γμ < s"""
    return (workers + math.sqrt(9 * workers**2 + 16 * workers)) / (2 * (workers + 2))


@step_size("vr_marina", case="nonconvex f, differences on batches of B", source="C10.4")
def vr_marina(*, L: float, L_mean: float, L_sample: float, omega: float, workers: int, p: float, batch: int) -> float:
    """γ ≤ 1/(L + √(((1 − p)/(pM))(ωL~² + (1 + ω)𝓛²/B)))"""
    inner = omega * L_mean**2 + (1 + omega) * L_sample**2 / batch
    return 1 / (L + math.sqrt((1 - p) / (p * workers) * inner))


@step_size("marina_permk", case="nonconvex f, PermK", source="C11.1")
def marina_permk(*, L: float, L_spread: float, workers: int, d: int, p: float) -> float:
    """γ ≤ 1/(L + L_±√(A(1 − p)/p)), A = 1 where d ≥ M, else (d − 1)/(M − 1)"""
    a = 1.0 if d >= workers else (d - 1) / (workers - 1)
    return 1 / (L + L_spread * math.sqrt(a * (1 - p) / p))


@step_size("dasha", case="nonconvex f, a = 1/(2ω + 1)", source="C12.3, derived")
def dasha(*, L: float, L_mean: float, omega: float, workers: int) -> float:
    """γ ≤ 1/(L + L~√(2ω(2ω + 1)/M))"""
    return 1 / (L + L_mean * math.sqrt(2 * omega * (2 * omega + 1) / workers))


@step_size("dasha", case="nonconvex f, as the paper has it", source="C12.3")
def dasha_as_printed(*, L: float, L_mean: float, omega: float, workers: int) -> float:
    """γ ≤ 1/(L + 4L~√(ω(2ω + 1)/M))"""
    return 1 / (L + 4 * L_mean * math.sqrt(omega * (2 * omega + 1) / workers))


@step_size("dasha", case="nonconvex f, as the authors' code has it", source="C12.3")
def dasha_official(*, L: float, L_mean: float, omega: float, workers: int) -> float:
    """γ ≤ 1/(L + L~√(ω(4ω + 1)/M))"""
    return 1 / (L + L_mean * math.sqrt(omega * (4 * omega + 1) / workers))


@step_size("dasha_mvr", case="nonconvex f, momentum b", source="C12.3")
def dasha_mvr(
    *, L: float, L_mean: float, L_noise: float, omega: float, workers: int, batch: int, momentum: float
) -> float:
    """γ ≤ 1/(L + √((96ω(2ω + 1)/M)((1 − b)²L_σ²/B + L~²) + 4(1 − b)²L_σ²/(bMB)))"""
    noisy = (1 - momentum) ** 2 * L_noise**2 / batch
    first = 96 * omega * (2 * omega + 1) / workers * (noisy + L_mean**2)
    return 1 / (L + math.sqrt(first + 4 * noisy / (momentum * workers)))


@step_size("dasha_page", case="nonconvex f, full gradients with probability p", source="C12.3")
def dasha_page(*, L: float, L_mean: float, L_sample: float, omega: float, workers: int, batch: int, p: float) -> float:
    """γ ≤ 1/(L + √((48ω(2ω + 1)/M)((1 − p)𝓛²/B + L~²) + 2(1 − p)𝓛²/(pMB)))"""
    noisy = (1 - p) * L_sample**2 / batch
    first = 48 * omega * (2 * omega + 1) / workers * (noisy + L_mean**2)
    return 1 / (L + math.sqrt(first + 2 * noisy / (p * workers)))


@step_size("l_svrg", case="strongly convex f_i", source="C18.1")
def l_svrg(*, L_max: float) -> float:
    """γ ≤ 1/(6L_max)"""
    return 1 / (6 * L_max)
