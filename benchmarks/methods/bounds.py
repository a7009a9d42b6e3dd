"""What was measured at theory's steps beside the bound of the theorem, for every method that has one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from case import MLMC, RANDK, TOPK, Case

import telegrad as tg
from telegrad.theory import bounds, step_sizes
from telegrad.theory.known_problems import theory_rate

Found = tuple[str, float, float]  # what, measured, bound


def mean_gradient(run: tg.Result) -> float:
    """Mean of ‖∇f(x_t)‖² over t = 0 … T − 1."""
    looks = [record["validation"] for record in run.records[:-1]]
    return sum(looks) / len(looks)


def squared_distance(run: tg.Result, case: Case) -> float:
    return float((run.parameters["x"].double() - case.optimum).square().sum())


def gradient_bound(
    method: str, lr: Callable[[Case], float], bound: Callable[[Case, float, int], float]
) -> Callable[[Case, int], list[Found]]:
    """A bound of the mean ‖∇f‖², whatever f."""

    def check(case: Case, steps: int) -> list[Found]:
        rate = lr(case)
        run = case.train(method.replace("WORKERS", str(case.workers)), steps, rate)
        return [("mean ‖∇f‖²", math.inf if run is None else mean_gradient(run), bound(case, rate, steps))]

    return check


def theory(method: str) -> Callable[[Case], float]:
    return lambda c: theory_rate(tg.method(method.replace("WORKERS", str(c.workers))), c.problem, c.d)


def marina(compressor: str, p: str) -> Callable[[Case, int], list[Found]]:
    method = f"marina({compressor}, probability={p})"

    def bound(c: Case, lr: float, T: int) -> float:
        own = tg.method(method.replace("WORKERS", str(c.workers)))
        constants = {"omega": own.compressor.omega(c.d), "workers": c.workers, "p": own.probability}
        return bounds.marina(L=c.problem.L, L_mean=c.problem.L_mean, gap=c.gap, T=T, lr=lr, **constants)

    return gradient_bound(method, theory(method), bound)


def dasha(compressor: str) -> Callable[[Case, int], list[Found]]:
    def bound(c: Case, lr: float, T: int) -> float:
        constants = {"omega": c.omega(compressor), "workers": c.workers}
        return bounds.dasha(L=c.problem.L, L_mean=c.problem.L_mean, gap=c.gap, T=T, lr=lr, **constants)

    return gradient_bound(f"dasha({compressor})", theory(f"dasha({compressor})"), bound)


def ef_bv(compressor: str) -> Callable[[Case, int], list[Found]]:
    def bound(c: Case, lr: float, T: int) -> float:
        own = tg.compressor(compressor)
        constants = {"eta": own.eta(c.d), "spread": own.spread(c.d), "first_error": c.first_energy}
        return bounds.ef_bv_nonconvex(
            L=c.problem.L, L_mean=c.problem.L_mean, workers=c.workers, gap=c.gap, T=T, lr=lr, **constants
        )

    return gradient_bound(f"ef_bv({compressor})", theory(f"ef_bv({compressor})"), bound)


def ef21(c: Case, lr: float, T: int) -> float:
    alpha = c.alpha(TOPK)  # the first message is C(∇f_i(x_0)), which leaves at most this of it
    first = (1 - alpha) * c.first_energy
    return bounds.ef21(L=c.problem.L, L_mean=c.problem.L_mean, alpha=alpha, gap=c.gap, T=T, lr=lr, first_error=first)


def ef21_sgdm(c: Case, lr: float, T: int) -> float:
    alpha = c.alpha(TOPK)
    constants = {"alpha": alpha, "momentum": 0.1, "sigma2": 0.0, "first_error": (1 - alpha) * c.first_energy}
    return bounds.ef21_sgdm(
        L=c.problem.L, L_mean=c.problem.L_mean, workers=c.workers, gap=c.gap, T=T, lr=lr, **constants
    )


def diana(compressor: str) -> Callable[[Case, int], list[Found]]:
    def rate(c: Case) -> float:
        constants = {"omega": c.omega(compressor), "workers": c.workers}
        return step_sizes.diana_nonconvex(L=c.problem.L, L_mean=c.problem.L_mean, **constants)

    def bound(c: Case, lr: float, T: int) -> float:
        constants = {"omega": c.omega(compressor), "workers": c.workers, "first_error": c.first_energy}
        return bounds.diana_nonconvex(L=c.problem.L, L_mean=c.problem.L_mean, gap=c.gap, T=T, lr=lr, **constants)

    nonconvex = gradient_bound(f"diana({compressor})", rate, bound)

    def check(case: Case, steps: int) -> list[Found]:
        found = nonconvex(case, steps)
        if case.convex:
            found += distance_bound(f"diana({compressor})", bounds.diana, compressor)(case, steps)
        return found

    return check


def distance_bound(method: str, bound: Callable[..., float], compressor: str) -> Callable[[Case, int], list[Found]]:
    """A bound of ‖x_T − x*‖² for strongly convex f."""

    def check(case: Case, steps: int) -> list[Found]:
        if not case.convex:
            return []
        rate, p = theory(method)(case), case.problem
        run = case.train(method, steps, rate)
        constants = {"L_max": p.L_max, "mu": p.mu, "omega": case.omega(compressor), "workers": case.workers}
        limit = bound(L=p.L, distance=case.distance, T=steps, lr=rate, optimum_energy=case.optimum_energy, **constants)
        return [("‖x_T − x*‖²", math.inf if run is None else squared_distance(run, case), limit)]

    return check


def scaffnew(name: str, owners: int | None) -> Callable[[Case, int], list[Found]]:
    """A bound of Ψ_T, of which M ‖x_T − x*‖² is a part; TAMUNA's steps are rounds of at least one local step."""

    def check(case: Case, steps: int) -> list[Found]:
        if not case.convex:
            return []
        p = case.problem
        constants = {"L_max": p.L_max, "mu_min": min(p.mu_each)}
        if owners is not None:
            constants |= {"workers": case.workers, "owners": owners}
        given = getattr(step_sizes, "scaffnew" if owners is None else "compressed_scaffnew")(**constants)
        extra = "" if owners is None else f", owners={owners}"
        if name == "tamuna":
            extra, steps = f", cohort={case.workers // 2}{extra}", max(2, round(steps * given["p"]))
        run = case.train(f"{name}(probability={given['p']}{extra})", steps, given["lr"])
        control = given["lr"] ** 2 / (given["p"] ** 2 if owners is None else given["rho"])
        limit = (case.distance**2 + control * case.optimum_energy) * getattr(bounds, name)(**constants, T=steps)
        return [("Ψ_T / M", math.inf if run is None else squared_distance(run, case), limit)]

    return check


def local_sgd(case: Case, steps: int) -> list[Found]:
    """C20: ‖∇f_i − ∇f‖ is at most twice the longest example."""
    p, omega, H = case.problem, case.omega(MLMC), 4
    limits = step_sizes.mlmc_local(L=p.L_max, omega=omega, workers=case.workers, local_steps=H)
    outer = min(limits["lr"], limits["outer"]) / limits["lr"]
    run = case.train(f"local_sgd({MLMC}, local_lr={limits['lr']}, local_steps={H})", steps, outer)
    xi2 = 4 * float(case.task.train.inputs.square().sum(1).max())
    limit = bounds.mlmc_local(
        L=p.L_max, workers=case.workers, local_steps=H, sigma2=0.0, gap=case.gap, T=steps, lr=limits["lr"],
        omega=omega, xi2=xi2,
    )  # fmt: skip
    return [("mean ‖∇f‖²", math.inf if run is None else mean_gradient(run), limit)]


BOUNDS: dict[str, Callable[[Case, int], list[Found]]] = {
    "gradient descent": gradient_bound(
        "sgd(identity)",
        lambda c: step_sizes.gd(L=c.problem.L),
        lambda c, lr, T: bounds.gd_nonconvex(L=c.problem.L, gap=c.gap, T=T, lr=lr),
    ),
    f"sgd({RANDK})": distance_bound(f"sgd({RANDK})", bounds.dcgd, RANDK),
    f"sgd({MLMC})": distance_bound(f"sgd({MLMC})", bounds.dcgd, MLMC),
    f"ef21({TOPK})": gradient_bound(f"ef21({TOPK})", theory(f"ef21({TOPK})"), ef21),
    f"ef21_sgdm({TOPK})": gradient_bound(f"ef21_sgdm({TOPK})", theory(f"ef21_sgdm({TOPK})"), ef21_sgdm),
    f"ef_bv({RANDK})": ef_bv(RANDK),
    f"ef_bv({TOPK})": ef_bv(TOPK),
    f"diana({RANDK})": diana(RANDK),
    f"diana({MLMC})": diana(MLMC),
    f"marina({RANDK})": marina(RANDK, "0.05"),
    f"marina({MLMC})": marina(MLMC, "0.05"),
    "marina(permk)": marina("permk(workers=WORKERS)", "0.05"),
    f"dasha({RANDK})": dasha(RANDK),
    f"dasha({MLMC})": dasha(MLMC),
    "scaffnew": scaffnew("scaffnew", None),
    "compressed_scaffnew": scaffnew("compressed_scaffnew", 2),
    "tamuna": scaffnew("tamuna", 2),
    f"local_sgd({MLMC})": local_sgd,
}


def bounds_of(case: Case, steps: int) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    return [
        {**case.head, "method": name, "what": what, "steps": steps, "measured": measured, "bound": bound}
        for name, check in BOUNDS.items()
        for what, measured, bound in check(case, steps)
    ]
