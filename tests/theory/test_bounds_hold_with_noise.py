"""Every bound for stochastic gradients against the method itself: F4 with Gaussian noise. Measured ≤ bound.

With 95 % confidence over seeds 0 … 3.
"""

import math

import pytest
import torch

import telegrad as tg
from f4_runs import (
    ALPHA,
    DISTANCE,
    GAP,
    OMEGA,
    WORKERS,
    B,
    D,
    Noisy,
    energy,
    gap,
    gradient_run,
    held,
    known,
    oracle_method_run,
    unlikeness,
)  # fmt: skip
from telegrad.methods import Clock
from telegrad.theory import bounds, step_sizes
from telegrad.theory.equilibrium import equilibrium

T, SEEDS, SIGMA2 = 100, 4, 4.0


def oracles(seed, count=WORKERS, sigma2=SIGMA2, alike=False):
    return [Noisy(rank, tg.Key(seed), sigma2, alike) for rank in range(count)]


def runs(spec, lr, alike=False, down=None):
    """The iterates of each seed, the last one included."""
    return [
        [now.x for now in gradient_run(spec, lr, T, seed, oracles(seed, alike=alike), down)] for seed in range(SEEDS)
    ]


def energies(found):
    """The mean of ‖∇f‖² over the rounds, a value a seed."""
    return [sum(map(energy, xs[:-1])) / T for xs in found]


def gaps(found):
    """The mean of f − f*, likewise."""
    return [sum(map(gap, xs[:-1])) / T for xs in found]


def test_ef14_with_one_worker():
    """C4.3, Top-2; G² is stated beforehand, and E‖g‖² ≤ G² is checked along the runs."""
    G2 = 2.5 * (energy(torch.zeros(D, dtype=torch.float64)) + SIGMA2)
    constants = {"L": 100.0, "alpha": ALPHA, "G2": G2, "gap": GAP, "T": T}
    lr = step_sizes.ef14(**constants)
    found = []
    for seed in range(SEEDS):
        one = oracles(seed, count=1, alike=True)
        found.append([now.x for now in gradient_run("ef14(topk(k=2))", lr, T, seed, one)])
    assert max(energy(x) for xs in found for x in xs) + SIGMA2 <= G2
    held("ef14", energies(found), bounds.ef14(lr=lr, **constants))


def test_ef21_sgdm():
    """v_i starts at a stochastic gradient here, where (C6.3) has the exact one: its noise is added to the bound."""
    momentum = 0.2
    lr = step_sizes.ef21_sgdm(L=100.0, L_mean=114.19, alpha=ALPHA, momentum=momentum)
    found = runs(f"ef21_sgdm(topk(k=2), momentum={momentum})", lr)
    first = float(B.square().sort(dim=1).values[:, :-2].sum(1).mean())
    more = {"alpha": ALPHA, "momentum": momentum, "sigma2": SIGMA2, "gap": GAP, "T": T, "lr": lr}
    bound = bounds.ef21_sgdm(**known(bounds.ef21_sgdm, first_error=first + SIGMA2, **more))
    start = 2 / (lr * T) * (lr / momentum / WORKERS + 8 * lr * momentum / ALPHA**2) * SIGMA2
    held("ef21_sgdm", energies(found), bound + start)


@pytest.mark.parametrize("convex", [True, False])
def test_the_mlmc_papers_bounds_for_alike_workers(convex):
    """Theorem 4.1 as corrected, at its own step size; s-Top-k MLMC, s = 2 (ω = 9)."""
    constants = {"L": 100.0, "workers": WORKERS, "sigma2": SIGMA2, "T": T, "omega": OMEGA}
    if convex:
        lr = step_sizes.sgd_paper_convex(distance=DISTANCE, **constants)
        found = runs("sgd(mlmc(stopk(s=2)))", lr, alike=True)
        held("sgd_paper_convex", gaps(found), bounds.sgd_paper_convex(distance=DISTANCE, **constants))
        held("sgd_paper_convex_at", gaps(found), bounds.sgd_paper_convex_at(distance=DISTANCE, lr=lr, **constants))
    else:
        lr = step_sizes.sgd_paper_nonconvex(gap=GAP, **constants)
        found = runs("sgd(mlmc(stopk(s=2)))", lr, alike=True)
        held("sgd_paper_nonconvex", energies(found), bounds.sgd_paper_nonconvex(gap=GAP, **constants))
        held("sgd_paper_nonconvex_at", energies(found), bounds.sgd_paper_nonconvex_at(gap=GAP, lr=lr, **constants))


@pytest.mark.parametrize("convex", [True, False])
def test_the_mlmc_papers_bounds_for_unlike_workers(convex):
    """Theorem F.2 as corrected; ξ² is stated beforehand, and checked along the runs."""
    constants = {"L": 100.0, "workers": WORKERS, "sigma2": SIGMA2, "xi2": 1.5 * unlikeness(torch.zeros(D).double())}
    constants |= {"T": T, "omega": OMEGA}
    if convex:
        lr = step_sizes.sgd_paper_convex_unlike(distance=DISTANCE, **constants)
    else:
        lr = step_sizes.sgd_paper_nonconvex_unlike(gap=GAP, **constants)
    found = runs("sgd(mlmc(stopk(s=2)))", lr)
    assert max(unlikeness(x) for xs in found for x in xs) <= constants["xi2"]
    if convex:
        held("sgd_paper_convex_unlike", gaps(found), bounds.sgd_paper_convex_unlike(distance=DISTANCE, **constants))
    else:
        held("sgd_paper_nonconvex_unlike", energies(found), bounds.sgd_paper_nonconvex_unlike(gap=GAP, **constants))


def test_compression_both_ways():
    """C2.2 at half its largest step: workers send Rand-5 (ω = 3), the server Rand-10 (ω_M = 1)."""
    law = {"L": 100.0, "workers": WORKERS, "sigma2": SIGMA2, "omega": 3.0, "omega_down": 1.0}
    law["xi2"] = 1.5 * unlikeness(torch.zeros(D).double())
    lr = 1 / ((1 + 1.0) * (1 + 3.0 / WORKERS) * 100.0)
    found = runs("sgd(randk(k=5))", lr, down=tg.compressor("randk(k=10)"))
    assert max(unlikeness(x) for xs in found for x in xs) <= law["xi2"]
    held("sgd_down", energies(found), bounds.sgd_down(gap=GAP, T=T, lr=lr, **law))


def test_vr_marina():
    """Additive noise, so that differences on one sample are exact (𝓛 = L~), and dense rounds are."""
    law = {"omega": OMEGA, "p": 0.1, "batch": 1, "L_sample": 114.19}
    lr = step_sizes.vr_marina(**known(step_sizes.vr_marina, **law))
    found = []
    for seed in range(SEEDS):
        own = dict(enumerate(oracles(seed)))
        found.append([r.point() for r in oracle_method_run("marina(randk(k=2), probability=0.1)", lr, T, seed, own)])
    held("vr_marina", energies(found), bounds.vr_marina(**known(bounds.vr_marina, gap=GAP, T=T, lr=lr, **law)))


def test_a_majority_of_signs():
    """C3.1: batches of T, so noise of variance σ_j²/T; separable quadratic, L⃗ = (0.1, …, 2); nine workers."""
    d, workers, rounds, sigma = 20, 9, 40, 2.0
    curvature = torch.linspace(0.1, 2.0, d, dtype=torch.float64)
    start = torch.full((d,), 1.5, dtype=torch.float64)
    constants = {"L_sum": float(curvature.sum()), "T": rounds}
    lr, method = step_sizes.sign_majority(**constants), tg.method("signsgd(vote=majority)")
    from telegrad.methods.base import Step

    norms = []
    for seed in range(SEEDS):
        x = start.clone()
        norms.append(0.0)
        for index in range(rounds):
            norms[-1] += float((curvature * x).abs().sum()) / rounds
            key = tg.Key(seed).fold(step=index)
            step, codes = Step(index, lr, key, workers=workers), []
            for rank in range(workers):
                noise = sigma / math.sqrt(rounds) * key.fold(role="noise", rank=rank).normal(d)
                codes.append(method.worker_step(curvature * x + noise, {}, rank, step)[0])
            x = x - lr * method.server_step(codes, {}, step)[0]
    more = {"gap": float((curvature * start**2).sum()) / 2, "sigma_sum": d * sigma, "workers": workers}
    held("sign_majority", [norm**2 for norm in norms], bounds.sign_majority(**constants, **more))


def test_shadowheart():
    """C17.2: K = 8LΔ/ε rounds bring the mean of ‖∇f‖² to ε, each within 2t* seconds; unlike speeds, alike data."""
    accuracy = 40.0
    rounds = math.ceil(bounds.shadowheart(L=100.0, gap=GAP, accuracy=accuracy))
    compute, send = [1.0 + rank for rank in range(WORKERS)], [1.0] * WORKERS
    noise = SIGMA2 / accuracy
    seconds = equilibrium(compute, send, OMEGA, noise).seconds
    clock, means = Clock(gradient=compute, message=send), []
    for seed in range(SEEDS):
        own = dict(enumerate(oracles(seed, alike=True)))
        spec = f"shadowheart(randk(k=2), noise={noise})"
        found = []
        for run in oracle_method_run(spec, step_sizes.shadowheart(L=100.0), rounds, seed, own, clock):
            found.append(run.point())
        means.append(sum(map(energy, found[:-1])) / rounds)
        assert run.timeline.seconds <= 2 * seconds * rounds * (1 + 1e-9)
    held("shadowheart", means, accuracy)
