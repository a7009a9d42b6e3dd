"""Every bound for exact gradients against the method itself, run on F4 with the theory's own step size.

Measured ≤ bound with 95 % confidence over seeds 0, 1, …: one run where nothing is random, else four. Noise and local
steps have files of their own.
"""

import pytest

import telegrad as tg
from f4_runs import (
    ALPHA,
    BEST,
    DISTANCE,
    GAP,
    MEAN_A,
    OMEGA,
    OPTIMUM_ENERGY,
    SHIFTS,
    WORKERS,
    A,
    B,
    D,
    energy,
    gap,
    gradient_run,
    held,
    known,
    oracle_method_run,
)  # fmt: skip
from telegrad.theory import bounds, step_sizes

T, SEEDS = 100, 4
FIRST = float(B.square().sum(1).mean())  # mean‖∇f_i(0)‖²: the first error of what starts at 0
FIRST_TOP = float(B.square().sort(dim=1).values[:, :-2].sum(1).mean())  # and after Top-2 of each


def points(spec, lr, seed=0, steps=T):
    """The first iterates, and one more."""
    if tg.method(spec).__class__.__mro__[1].__name__ == "OracleMethod":
        return [run.point() for run in oracle_method_run(spec, lr, steps, seed)]
    return [now.x for now in gradient_run(spec, lr, steps, seed)]


def measured(spec, lr):
    """A value a seed each: the mean of ‖∇f‖² over the rounds, f(x_T) − f* and ‖x_T − x*‖²."""
    runs = [points(spec, lr, seed) for seed in range(SEEDS if "rand" in spec or "perm" in spec else 1)]
    return (
        [sum(map(energy, xs[:-1])) / T for xs in runs],
        [gap(xs[-1]) for xs in runs],
        [float((xs[-1] - BEST).square().sum()) for xs in runs],
    )


def test_the_problem_is_f4():
    assert float(BEST @ MEAN_A @ BEST) / 2 == pytest.approx(GAP, rel=1e-6)
    assert float(BEST @ BEST) == pytest.approx(DISTANCE**2, rel=1e-6)
    assert float(SHIFTS.square().sum(1).mean()) == pytest.approx(OPTIMUM_ENERGY, rel=1e-6)
    assert A.shape == (WORKERS, D, D)


def test_gradient_descent():
    lr = step_sizes.gd(L=100.0)
    mean, last, distance = measured("sgd(identity)", lr)
    held("gd", [last[0] / GAP], bounds.gd(L=100.0, mu=1.0, T=T, lr=lr))
    held("gd_nonconvex", mean, bounds.gd_nonconvex(L=100.0, gap=GAP, T=T, lr=lr))
    still = {"L": 100.0, "workers": WORKERS, "sigma2": 0.0, "T": T, "lr": lr}
    held("sgd_strongly_convex", distance, bounds.sgd_strongly_convex(mu=1.0, distance=DISTANCE, **still))


def test_compressed_gradient_descent_stalls_within_its_bound():
    lr = step_sizes.sgd_any_data(**known(step_sizes.sgd_any_data, omega=OMEGA))
    more = {"omega": OMEGA, "optimum_energy": OPTIMUM_ENERGY, "distance": DISTANCE, "T": T, "lr": lr}
    _, _, distance = measured("sgd(randk(k=2))", lr)
    held("dcgd", distance, bounds.dcgd(**known(bounds.dcgd, **more)))
    assert min(distance) > 1e-4  # it stalls


def test_ef21():
    """All g_i start at zero, so the first error is that of C(∇f_i(x_0))."""
    lr = step_sizes.ef21(L=100.0, L_mean=114.19, alpha=ALPHA)
    more = {"alpha": ALPHA, "gap": GAP, "T": T, "first_error": FIRST_TOP}
    mean, _, _ = measured("ef21(topk(k=2))", lr)
    held("ef21", mean, bounds.ef21(**known(bounds.ef21, lr=lr, **more)))
    slow = step_sizes.ef21_pl(L=100.0, L_mean=114.19, mu=1.0, alpha=ALPHA)
    _, last, _ = measured("ef21(topk(k=2))", slow)
    held("ef21_pl", last, bounds.ef21_pl(**known(bounds.ef21_pl, lr=slow, **more)))


@pytest.mark.parametrize("momentum", [1.0, 0.3])
def test_ef21_sgdm(momentum):
    lr = step_sizes.ef21_sgdm(L=100.0, L_mean=114.19, alpha=ALPHA, momentum=momentum)
    more = {"alpha": ALPHA, "momentum": momentum, "sigma2": 0.0, "gap": GAP, "T": T, "lr": lr}
    mean, _, _ = measured(f"ef21_sgdm(topk(k=2), momentum={momentum})", lr)
    held("ef21_sgdm", mean, bounds.ef21_sgdm(**known(bounds.ef21_sgdm, first_error=FIRST_TOP, **more)))


@pytest.mark.parametrize(("spec", "seeds"), [("topk(k=2)", 1), ("randk(k=2)", SEEDS), ("mix(k=1, k2=1)", SEEDS)])
def test_ef_bv(spec, seeds):
    """Biased, unbiased, and both: Ψ = f − f* + (γ/(2θ*))·mean‖∇f_i − h_i‖², h_i = 0 at first."""
    law = {"eta": tg.compressor(spec).eta(D), "spread": tg.compressor(spec).spread(D)}
    lr = step_sizes.ef_bv(**known(step_sizes.ef_bv, **law))
    theta = step_sizes.ef_bv_weights(workers=WORKERS, **law)["theta"]
    share, mean = [], []
    for seed in range(seeds):
        *along, end = gradient_run(f"ef_bv({spec})", lr, T, seed)
        wrong = [own @ end.x - b - state["shift"] for own, b, state in zip(A, B, end.states, strict=True)]
        error = sum(float(one.square().sum()) for one in wrong) / WORKERS
        first = GAP + lr / (2 * theta) * FIRST
        share.append((gap(end.x) + lr / (2 * theta) * error) / first)
        mean.append(sum(energy(now.x) for now in along) / T)
    more = {**law, "T": T, "lr": lr}
    held("ef_bv", share, bounds.ef_bv(**known(bounds.ef_bv, **more)))
    held(
        "ef_bv_nonconvex",
        mean,
        bounds.ef_bv_nonconvex(**known(bounds.ef_bv_nonconvex, gap=GAP, first_error=FIRST, **more)),
    )


def test_diana():
    lr = step_sizes.diana(**known(step_sizes.diana, omega=OMEGA))
    more = {"omega": OMEGA, "T": T, "lr": lr, "distance": DISTANCE, "optimum_energy": OPTIMUM_ENERGY}
    _, _, distance = measured("diana(randk(k=2))", lr)
    held("diana", distance, bounds.diana(**known(bounds.diana, **more)))
    slow = step_sizes.diana_nonconvex(**known(step_sizes.diana_nonconvex, omega=OMEGA))
    mean, _, _ = measured("diana(randk(k=2))", slow)
    more = {"omega": OMEGA, "gap": GAP, "T": T, "lr": slow, "first_error": FIRST}
    held("diana_nonconvex", mean, bounds.diana_nonconvex(**known(bounds.diana_nonconvex, **more)))


def test_marina_and_its_permuted_form():
    law = {"omega": OMEGA, "p": 0.1}
    lr = step_sizes.marina(**known(step_sizes.marina, **law))
    mean, _, _ = measured("marina(randk(k=2), probability=0.1)", lr)
    held("marina", mean, bounds.marina(**known(bounds.marina, gap=GAP, T=T, lr=lr, **law)))
    slow = step_sizes.marina_pl(**known(step_sizes.marina_pl, **law))
    _, last, _ = measured("marina(randk(k=2), probability=0.1)", slow)
    held("marina_pl", last, bounds.marina_pl(**known(bounds.marina_pl, gap=GAP, T=T, lr=slow, **law)))
    apart = {"L": 100.0, "L_spread": 29.69848, "workers": WORKERS, "d": D, "p": 0.1}
    lr = step_sizes.marina_permk(**apart)
    mean, _, _ = measured("marina(permk(workers=10), probability=0.1)", lr)
    held("marina_permk", mean, bounds.marina_permk(gap=GAP, T=T, lr=lr, **apart))


@pytest.mark.parametrize("size", [step_sizes.dasha, step_sizes.dasha_as_printed])
def test_dasha(size):
    """The derived step size, and the paper's smaller one."""
    lr = size(**known(size, omega=OMEGA))
    mean, _, _ = measured("dasha(randk(k=2))", lr)
    held("dasha", mean, bounds.dasha(**known(bounds.dasha, omega=OMEGA, gap=GAP, T=T, lr=lr)))
