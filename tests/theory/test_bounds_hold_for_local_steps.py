"""Every bound for methods with local steps against the method itself on F4. With 95 % confidence over seeds 0 … 2."""

import pytest
import torch

import telegrad as tg
from f4_runs import BEST, GAP, SHIFTS, WORKERS, D, Noisy, energy, held, known, oracle_method_run, unlikeness
from telegrad.theory import bounds, step_sizes

STEPS, SEEDS = 200, 3


def psi(run, weight):
    """Σ‖x_i − x*‖² + weight·Σ‖h_i − ∇f_i(x*)‖² over all workers."""
    ranks = range(WORKERS)
    x = torch.stack([run.x[rank] for rank in ranks])
    h = torch.stack([run.states[rank]["control"] for rank in ranks])
    return float((x - BEST).square().sum() + weight * (h - SHIFTS).square().sum())


def shares(spec, lr, weight):
    """Ψ after the last step over Ψ at the start, a value a seed."""
    found = []
    for seed in range(SEEDS):
        own = {rank: Noisy(rank, tg.Key(seed)) for rank in range(WORKERS)}
        first, *_, last = (psi(run, weight) for run in oracle_method_run(spec, lr, STEPS, seed, own))
        found.append(last / first)
    return found


def test_scaffnew():
    """C14.3."""
    size = step_sizes.scaffnew(L_max=140.546, mu_min=0.58)
    found = shares(f"scaffnew(probability={size['p']})", size["lr"], size["lr"] ** 2 / size["p"] ** 2)
    held("scaffnew", found, bounds.scaffnew(**known(bounds.scaffnew, T=STEPS)))


@pytest.mark.parametrize("owners", [2, 5])
def test_compressed_scaffnew(owners):
    """C15.2."""
    size = step_sizes.compressed_scaffnew(**known(step_sizes.compressed_scaffnew, owners=owners))
    spec = f"compressed_scaffnew(probability={size['p']}, owners={owners})"
    found = shares(spec, size["lr"], size["lr"] ** 2 / size["rho"])
    held(
        "compressed_scaffnew",
        found,
        bounds.compressed_scaffnew(**known(bounds.compressed_scaffnew, owners=owners, T=STEPS)),
    )


def test_tamuna():
    """C16: four of ten workers a round; Ψ at the end of the first round that has `STEPS` local steps behind it."""
    owners = 3
    size = step_sizes.tamuna(**known(step_sizes.tamuna, owners=owners))
    lr, spec = size["lr"], f"tamuna(probability={size['p']}, cohort=4, owners={owners})"
    found = []
    for seed in range(SEEDS):
        own, first = {rank: Noisy(rank, tg.Key(seed)) for rank in range(WORKERS)}, 0.0
        for run in oracle_method_run(spec, lr, STEPS, seed, own):
            value = psi(run, lr**2 / size["rho"])
            first = first or value
            if sum(oracle.made for oracle in own.values()) / 4 > STEPS:
                break
        found.append(value / first)
    held("tamuna", found, bounds.tamuna(**known(bounds.tamuna, owners=owners, T=STEPS)))


@pytest.mark.parametrize("compressor", ["identity", "mlmc(stopk(s=4))"])
def test_local_sgd_with_and_without_mlmc(compressor):
    """C20.2, four local steps, noise; L is that of every f_i; ξ² is stated beforehand, and checked along the runs."""
    steps, rounds, sigma2 = 4, 50, 4.0
    law = {"L": 140.546, "workers": WORKERS, "local_steps": steps}
    omega = tg.compressor(compressor).omega(D)
    sizes = step_sizes.mlmc_local(omega=omega, **law)
    lr, outer = sizes["lr"], min(sizes["lr"], sizes["outer"])
    xi2 = 1.5 * unlikeness(torch.zeros(D, dtype=torch.float64))
    spec = f"local_sgd({compressor}, local_lr={lr}, local_steps={steps})"
    means = []
    for seed in range(SEEDS):
        own = {rank: Noisy(rank, tg.Key(seed), sigma2) for rank in range(WORKERS)}
        xs = [run.point() for run in oracle_method_run(spec, outer / lr, rounds, seed, own)]
        assert max(map(unlikeness, xs)) <= xi2
        means.append(sum(map(energy, xs[:-1])) / rounds)
    more = {"sigma2": sigma2, "xi2": xi2, "gap": GAP, "T": rounds, "lr": lr, **law}
    held("mlmc_local", means, bounds.mlmc_local(omega=omega, **more))
    if omega == 0:
        held("local_sgd", means, bounds.local_sgd(**more))
