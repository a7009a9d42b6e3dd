"""Step sizes and other parameters that theory gives each method.

Every function takes the constants of `telegrad.theory.constants` by name, and the first line of its docstring is what
it computes. Step sizes are in length² / loss, as 1/L is. Numbers in brackets are those of the algorithm reference.
Where a paper prints a constant that its own algebra does not give, the function says "printed" or "corrected".
"""

from __future__ import annotations

import math
from functools import partial

from telegrad.theory.statements import statement

__all__ = [
    *("adiana", "compressed_scaffnew", "dasha", "dasha_as_printed", "dasha_mvr", "dasha_official", "dasha_page"),
    *("diana", "diana_frontier", "diana_nonconvex", "ef14", "ef21", "ef21_pl", "ef21_ratio", "ef21_sgdm"),
    *("ef21_sgdm_momentum", "ef_bv", "ef_bv_weights", "gd", "l_svrg", "local_sgd", "marina", "marina_frontier"),
    *("marina_permk", "marina_pl", "mlmc_local", "scaffnew", "sgd", "sgd_any_data", "sgd_convex", "sgd_down"),
    *("sgd_nonconvex", "sgd_paper_convex", "sgd_paper_convex_unlike", "sgd_paper_convex_unlike_as_printed"),
    *("sgd_paper_nonconvex", "sgd_paper_nonconvex_as_printed", "sgd_paper_nonconvex_unlike", "shadowheart"),
    *("sign_majority", "tamuna", "vr_marina"),
]

_step = partial(statement, kind="step size", unit="length² / loss")
_pure = partial(statement, kind="step size", unit="1")

_MLMC = "Zukerman, Hamoud, Levy, ICML 2025"


def _min(*steps: float) -> float:
    return min(steps)


def _over(numerator: float, denominator: float) -> float:
    """numerator / denominator, infinite where nothing is in the way."""
    return numerator / denominator if denominator else math.inf


@_step("gd", case="f L-smooth", source="F2")
def gd(*, L: float) -> float:
    """γ = 1/L"""
    return 1 / L


@_step("sgd", case="any f, largest step", source="B7.4; C2.1")
def sgd(*, L: float, workers: int, omega: float = 0.0) -> float:
    """γ ≤ 1/(L(1 + ω/M))"""
    return 1 / (L * (1 + omega / workers))


def noise(omega: float, sigma2: float, xi2: float) -> float:
    """S' = (1 + ω)σ² + ωξ²: what compression makes of a worker's noise and of the workers' differences (B7.4)."""
    return (1 + omega) * sigma2 + omega * xi2


@_step("sgd", case="convex f, for T steps", source="B7.4")
def sgd_convex(
    *, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float = 0.0, xi2: float = 0.0
) -> float:
    """γ = min{1/(L(1 + ω/M)), D√(M/(S'T))}, S' = (1 + ω)σ² + ωξ²"""
    rest = math.sqrt(noise(omega, sigma2, xi2) * T / workers)
    return _min(sgd(L=L, workers=workers, omega=omega), _over(distance, rest))


@_step("sgd", case="nonconvex f, for T steps", source="B7.4")
def sgd_nonconvex(
    *, L: float, workers: int, sigma2: float, gap: float, T: int, omega: float = 0.0, xi2: float = 0.0
) -> float:
    """γ = min{1/(L(1 + ω/M)), √(2ΔM/(LS'T))}, S' = (1 + ω)σ² + ωξ²"""
    rest = math.sqrt(L * noise(omega, sigma2, xi2) * T)
    return _min(sgd(L=L, workers=workers, omega=omega), _over(math.sqrt(2 * gap * workers), rest))


@_step("sgd", case="strongly convex f, each f_i convex, workers however unlike", source="B7.4; F2 (DCGD)")
def sgd_any_data(*, L: float, L_max: float, workers: int, omega: float = 0.0) -> float:
    """γ ≤ 1/(L + 2ωL_max/M)"""
    return 1 / (L + 2 * omega * L_max / workers)


@_step("sgd", case="the server compresses too, to E‖∇f‖² ≤ ε", source="C2.2")
def sgd_down(
    *, L: float, workers: int, sigma2: float, accuracy: float, omega: float, omega_down: float, xi2: float = 0.0
) -> float:
    """γ = ε/(L(a + εb)), a = (1 + ω_M)((1 + ω)σ² + ωξ²)/M, b = (1 + ω_M)(1 + ω/M)"""
    a = (1 + omega_down) * noise(omega, sigma2, xi2) / workers
    return accuracy / (L * (a + accuracy * (1 + omega_down) * (1 + omega / workers)))


@_step("sgd", case="the MLMC paper: convex, alike workers, T steps", source=f"B7.2, Theorem 4.1 (89); {_MLMC}")
def sgd_paper_convex(*, L: float, workers: int, sigma2: float, distance: float, T: int, omega: float) -> float:
    """γ = min{1/(2L), M/(16ωL), D√M/(2σ√((2ω + 1)T))}"""
    third = _over(distance * math.sqrt(workers), 2 * math.sqrt(sigma2 * (2 * omega + 1) * T))
    return _min(1 / (2 * L), _over(workers, 16 * omega * L), third)


@_step("sgd", case="the MLMC paper, corrected: nonconvex, alike workers, T steps", source=f"B7.2 (93); {_MLMC}")
def sgd_paper_nonconvex(*, L: float, workers: int, sigma2: float, gap: float, T: int, omega: float) -> float:
    """γ = min{1/L, M/(8ωL), √(ΔM)/(σ√((2ω + 1)LT))}"""
    third = _over(math.sqrt(gap * workers), math.sqrt(sigma2 * (2 * omega + 1) * L * T))
    return _min(1 / L, _over(workers, 8 * omega * L), third)


@_step("sgd", case="the MLMC paper, as printed: nonconvex, alike workers, T steps", source=f"B7.2 (93); {_MLMC}")
def sgd_paper_nonconvex_as_printed(*, L: float, workers: int, sigma2: float, T: int, omega: float) -> float:
    """γ = min{1/L, M/(8ωL), √M/(σ√((2ω + 1)LT))}: without Δ the third entry has other units than a step"""
    return sgd_paper_nonconvex(L=L, workers=workers, sigma2=sigma2, gap=1.0, T=T, omega=omega)


def unlike_noise(omega: float, sigma2: float, xi2: float) -> float:
    """S = 4(3ω + 1)σ² + 12ωξ² of the MLMC paper's Theorem F.2 (B7.3)."""
    return 4 * (3 * omega + 1) * sigma2 + 12 * omega * xi2


@_step("sgd", case="the MLMC paper, corrected: convex, unlike workers, T steps", source=f"B7.3 (117); {_MLMC}")
def sgd_paper_convex_unlike(
    *, L: float, workers: int, sigma2: float, xi2: float, distance: float, T: int, omega: float
) -> float:
    """γ = min{1/(2L), M/(24ωL), D√M/√(ST)}, S = 4(3ω + 1)σ² + 12ωξ²"""
    third = _over(distance * math.sqrt(workers), math.sqrt(unlike_noise(omega, sigma2, xi2) * T))
    return _min(1 / (2 * L), _over(workers, 24 * omega * L), third)


@_step("sgd", case="the MLMC paper, as printed: convex, unlike workers, T steps", source=f"B7.3 (118); {_MLMC}")
def sgd_paper_convex_unlike_as_printed(
    *, L: float, workers: int, sigma2: float, xi2: float, distance: float, T: int, omega: float
) -> float:
    """γ = min{1/(2L), M/(16ωL), D√M/√(ST)}: 16 where the proof has 24"""
    third = _over(distance * math.sqrt(workers), math.sqrt(unlike_noise(omega, sigma2, xi2) * T))
    return _min(1 / (2 * L), _over(workers, 16 * omega * L), third)


@_step("sgd", case="the MLMC paper, corrected: nonconvex, unlike workers, T steps", source=f"B7.3 (124); {_MLMC}")
def sgd_paper_nonconvex_unlike(
    *, L: float, workers: int, sigma2: float, xi2: float, gap: float, T: int, omega: float
) -> float:
    """γ = min{1/L, M/(12ωL), √(4ΔM/(SLT))}, S = 4(3ω + 1)σ² + 12ωξ²"""
    third = _over(math.sqrt(4 * gap * workers), math.sqrt(unlike_noise(omega, sigma2, xi2) * L * T))
    return _min(1 / L, _over(workers, 12 * omega * L), third)


@_step("sign_majority", case="coordinate-wise smooth f, unimodal symmetric noise, batch T", source="C3.1")
def sign_majority(*, L_sum: float, T: int) -> float:
    """γ = 1/√(‖L⃗‖₁T)"""
    return 1 / math.sqrt(L_sum * T)


@_step("ef14", case="E‖g‖² ≤ G², one worker, T steps", source="C4.3")
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
    return math.sqrt(1 - alpha) / (1 - math.sqrt(1 - alpha))


@_step("ef21", case="nonconvex f", source="C5.3")
def ef21(*, L: float, L_mean: float, alpha: float) -> float:
    """γ ≤ 1/(L + L~√(β/θ)), √(β/θ) = √(1 − α)/(1 − √(1 − α))"""
    return 1 / (L + L_mean * ef21_ratio(alpha))


@_step("ef21", case="Polyak-Łojasiewicz f", source="C5.4")
def ef21_pl(*, L: float, L_mean: float, mu: float, alpha: float) -> float:
    """γ ≤ min{1/(L + L~√(2β/θ)), θ/(2μ)}, θ = 1 − √(1 − α)"""
    theta = 1 - math.sqrt(1 - alpha)
    return _min(1 / (L + L_mean * math.sqrt(2) * ef21_ratio(alpha)), theta / (2 * mu))


@_step("ef21_sgdm", case="nonconvex f, momentum η", source="C6.2")
def ef21_sgdm(*, L: float, L_mean: float, alpha: float, momentum: float) -> float:
    """γ ≤ min{α/(20L~), η/(7L)}"""
    return _min(alpha / (20 * L_mean), momentum / (7 * L))


@_pure("ef21_sgdm", case="the momentum for T steps", source="C6.4")
def ef21_sgdm_momentum(*, L: float, alpha: float, sigma2: float, gap: float, workers: int, T: int) -> float:
    """η = min{1, (LΔM/(σ²T))^½, (LΔα/(σ²T))^⅓, (LΔα²/(σ²T))^¼}"""
    ratio = _over(L * gap, sigma2 * T)
    return _min(1.0, (ratio * workers) ** 0.5, (ratio * alpha) ** (1 / 3), (ratio * alpha**2) ** 0.25)


@_pure("ef_bv", case="the weights of shift and estimate", source="C7.2")
def ef_bv_weights(*, eta: float, spread: float, workers: int) -> dict[str, float]:
    """λ = min{1, (1 − η)/((1 − η)² + ω)}, ν the same of ω/M; r, r_av, s*, θ* of the rate"""

    def weight(variance: float) -> float:
        return min(1.0, _over(1 - eta, (1 - eta) ** 2 + variance))

    def remains(w: float, variance: float) -> float:
        return (1 - w + w * eta) ** 2 + w**2 * variance

    shift, estimate = weight(spread), weight(spread / workers)
    r, r_mean = remains(shift, spread), remains(estimate, spread / workers)
    s = math.sqrt((1 + r) / (2 * r)) - 1 if r else math.inf
    theta = s * (1 + s) * r / r_mean if r else math.inf
    return {"lambda": shift, "nu": estimate, "r": r, "r_mean": r_mean, "s": s, "theta": theta}


@_step("ef_bv", case="any f", source="C7.2")
def ef_bv(*, L: float, L_mean: float, eta: float, spread: float, workers: int) -> float:
    """γ ≤ 1/(L + L~√(r_av/r)/s*)"""
    w = ef_bv_weights(eta=eta, spread=spread, workers=workers)
    return 1 / (L + (L_mean * math.sqrt(w["r_mean"] / w["r"]) / w["s"] if w["r"] else 0.0))


@_step("diana", case="strongly convex f, each f_i convex, shift rate 1/(1 + ω)", source="C8.2")
def diana(*, L: float, L_max: float, omega: float, workers: int) -> float:
    """γ ≤ 1/(L + 6ωL_max/M)"""
    return 1 / (L + 6 * omega * L_max / workers)


@_step("diana", case="nonconvex f, shift rate 1/(1 + ω)", source="C8.3")
def diana_nonconvex(*, L: float, L_mean: float, omega: float, workers: int) -> float:
    """γ ≤ min{1/(2L), √M/(√(12ω)(1 + ω)L~)}"""
    return _min(1 / (2 * L), _over(math.sqrt(workers), math.sqrt(12 * omega) * (1 + omega) * L_mean))


@_pure("diana", case="exact limit of γμ: alike scalar quadratics, half-dropout (ω = 1)", source="C8.4")
def diana_frontier(*, workers: int) -> float:
    """s = (M − 4 + √(9M² + 8M + 16))/(2(M + 2)): stable for 0 < γμ < s"""
    n = workers
    return (n - 4 + math.sqrt(9 * n**2 + 8 * n + 16)) / (2 * (n + 2))


@_step("adiana", case="all parameters", source="C9.2")
def adiana(*, L_max: float, mu: float, omega: float, workers: int) -> dict[str, float]:
    """η = min{1/(2L), M/(64ω(2p(1 + ω) + 1)²L)}, and p, θ₁, θ₂, γ, β, shift rate α; L = L_max"""
    root = math.sqrt(_over(workers, 32 * omega)) - 1
    p = min(1.0, max(1.0, root) / (2 * (1 + omega)))
    step = _min(1 / (2 * L_max), _over(workers, 64 * omega * (2 * p * (omega + 1) + 1) ** 2 * L_max))
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


@_step("marina", case="nonconvex f", source="C10.2")
def marina(*, L: float, L_mean: float, omega: float, workers: int, p: float) -> float:
    """γ ≤ 1/(L + L~√((1 − p)ω/(pM)))"""
    return 1 / (L + L_mean * math.sqrt((1 - p) * omega / (p * workers)))


@_step("marina", case="Polyak-Łojasiewicz f", source="C10.2")
def marina_pl(*, L: float, L_mean: float, mu: float, omega: float, workers: int, p: float) -> float:
    """γ ≤ min{1/(L + L~√(2(1 − p)ω/(pM))), p/(2μ)}"""
    return _min(1 / (L + L_mean * math.sqrt(2 * (1 - p) * omega / (p * workers))), p / (2 * mu))


@_pure("marina", case="exact limit of γμ: alike scalar quadratics, half-dropout, p = ½", source="C10.5")
def marina_frontier(*, workers: int) -> float:
    """s = (M + √(9M² + 16M))/(2(M + 2)): stable for 0 < γμ < s"""
    return (workers + math.sqrt(9 * workers**2 + 16 * workers)) / (2 * (workers + 2))


@_step("vr_marina", case="nonconvex f, differences on batches of B", source="C10.4")
def vr_marina(*, L: float, L_mean: float, L_sample: float, omega: float, workers: int, p: float, batch: int) -> float:
    """γ ≤ 1/(L + √(((1 − p)/(pM))(ωL~² + (1 + ω)𝓛²/B)))"""
    inner = omega * L_mean**2 + (1 + omega) * L_sample**2 / batch
    return 1 / (L + math.sqrt((1 - p) / (p * workers) * inner))


@_step("marina_permk", case="nonconvex f, PermK", source="C11.1")
def marina_permk(*, L: float, L_spread: float, workers: int, d: int, p: float) -> float:
    """γ ≤ 1/(L + L_±√(A(1 − p)/p)), A = 1 where d ≥ M, else (d − 1)/(M − 1)"""
    a = 1.0 if d >= workers else (d - 1) / (workers - 1)
    return 1 / (L + L_spread * math.sqrt(a * (1 - p) / p))


@_step("dasha", case="nonconvex f, a = 1/(2ω + 1)", source="C12.3, derived")
def dasha(*, L: float, L_mean: float, omega: float, workers: int) -> float:
    """γ ≤ 1/(L + L~√(2ω(2ω + 1)/M))"""
    return 1 / (L + L_mean * math.sqrt(2 * omega * (2 * omega + 1) / workers))


@_step("dasha", case="nonconvex f, as the paper has it", source="C12.3")
def dasha_as_printed(*, L: float, L_mean: float, omega: float, workers: int) -> float:
    """γ ≤ 1/(L + 4L~√(ω(2ω + 1)/M))"""
    return 1 / (L + 4 * L_mean * math.sqrt(omega * (2 * omega + 1) / workers))


@_step("dasha", case="nonconvex f, as the authors' code has it", source="C12.3")
def dasha_official(*, L: float, L_mean: float, omega: float, workers: int) -> float:
    """γ ≤ 1/(L + L~√(ω(4ω + 1)/M))"""
    return 1 / (L + L_mean * math.sqrt(omega * (4 * omega + 1) / workers))


@_step("dasha_mvr", case="nonconvex f, momentum b", source="C12.3")
def dasha_mvr(
    *, L: float, L_mean: float, L_noise: float, omega: float, workers: int, batch: int, momentum: float
) -> float:
    """γ ≤ 1/(L + √((96ω(2ω + 1)/M)((1 − b)²L_σ²/B + L~²) + 4(1 − b)²L_σ²/(bMB)))"""
    noisy = (1 - momentum) ** 2 * L_noise**2 / batch
    first = 96 * omega * (2 * omega + 1) / workers * (noisy + L_mean**2)
    return 1 / (L + math.sqrt(first + 4 * noisy / (momentum * workers)))


@_step("dasha_page", case="nonconvex f, full gradients with probability p", source="C12.3")
def dasha_page(*, L: float, L_mean: float, L_sample: float, omega: float, workers: int, batch: int, p: float) -> float:
    """γ ≤ 1/(L + √((48ω(2ω + 1)/M)((1 − p)𝓛²/B + L~²) + 2(1 − p)𝓛²/(pMB)))"""
    noisy = (1 - p) * L_sample**2 / batch
    first = 48 * omega * (2 * omega + 1) / workers * (noisy + L_mean**2)
    return 1 / (L + math.sqrt(first + 2 * noisy / (p * workers)))


@_step("local_sgd", case="nonconvex f, H local steps", source="C13; C20.2 with ω = 0")
def local_sgd(*, L: float, local_steps: int) -> float:
    """γ ≤ 1/(16LH)"""
    return 1 / (16 * L * local_steps)


@_step("mlmc_local", case="nonconvex f, H local steps: the local and the outer step", source="C20.2")
def mlmc_local(*, L: float, omega: float, workers: int, local_steps: int) -> dict[str, float]:
    """local γ ≤ 1/(16LH); outer a ≤ min{1/(2LH), M/(16LωH)}"""
    outer = _min(1 / (2 * L * local_steps), _over(workers, 16 * L * omega * local_steps))
    return {"lr": 1 / (16 * L * local_steps), "outer": outer}


@_step("scaffnew", case="strongly convex f_i", source="C14.3")
def scaffnew(*, L_max: float, mu_min: float) -> dict[str, float]:
    """γ = 1/L_max, p = 1/√κ, κ = L_max/min μ_i"""
    return {"lr": 1 / L_max, "p": math.sqrt(mu_min / L_max)}


@_step("compressed_scaffnew", case="strongly convex f_i, s owners of a coordinate", source="C15.3")
def compressed_scaffnew(*, L_max: float, mu_min: float, workers: int, owners: int) -> dict[str, float]:
    """γ = 2/(L_max + min μ_i), p = min{1, √(M/(sκ))}, χ = M(s − 1)/(s(M − 1))"""
    p = min(1.0, math.sqrt(workers * mu_min / (owners * L_max)))
    chi = workers * (owners - 1) / (owners * (workers - 1))
    return {"lr": 2 / (L_max + mu_min), "p": p, "chi": chi, "rho": p**2 * chi * (owners - 1) / (workers - 1)}


@_step("tamuna", case="strongly convex f_i, c of M workers a round, s owners", source="C16.2")
def tamuna(*, L_max: float, mu_min: float, workers: int, owners: int) -> dict[str, float]:
    """As compressed_scaffnew, M and not c in p, χ and ρ"""
    return compressed_scaffnew(L_max=L_max, mu_min=mu_min, workers=workers, owners=owners)


@_step("shadowheart", case="nonconvex f, alike data", source="C17.2")
def shadowheart(*, L: float) -> float:
    """γ = 1/(2L)"""
    return 1 / (2 * L)


@_step("l_svrg", case="strongly convex f_i", source="C18.1")
def l_svrg(*, L_max: float) -> float:
    """γ ≤ 1/(6L_max)"""
    return 1 / (6 * L_max)
