"""Every bound that the library has a method for, against that method run on F4 with the theory's own step size.

F4: ten unlike quadratics in twenty dimensions, condition 100 (L = 100, mu = 1). Seeds are fixed: three for
DCGD and DIANA, one for MARINA.
"""

import inspect
import math

import pytest
import torch

import telegrad as tg
from problems import f4, oracle_run, plain_sgd
from telegrad.methods.base import Step
from telegrad.methods.oracle_method import OracleMethod
from telegrad.theory import bounds, step_sizes

D, WORKERS, T = 20, 10, 100
F4 = {"L": 100.0, "L_mean": 114.19, "L_max": 140.546, "mu": 1.0, "workers": WORKERS}
GAP, DISTANCE, OPTIMUM_ENERGY = 0.09243448, math.sqrt(0.08642818), 9.271809
OMEGA, ALPHA = 9.0, 0.1  # Rand-2 and Top-2


def only(function, **more):
    names = {"L", "L_mean", "L_max", "mu", "workers"}
    wanted = inspect.signature(function).parameters
    return {name: value for name, value in (F4 | more).items() if name in wanted and (name in names or name in more)}


@pytest.fixture(scope="module")
def problem():
    rows = f4().train.inputs
    a, b = rows[:, : D * D].reshape(-1, D, D).mean(0), rows[:, D * D : -1].mean(0)
    return a, b, torch.linalg.solve(a, b), rows[:, D * D : -1]


def points(problem, method, lr, seed):
    """The first T iterates, and one more."""
    built = tg.method(method)
    if isinstance(built, OracleMethod):
        run = plain_sgd(oracle_run(f4(), method, WORKERS, seed=seed))
        for index in range(T):
            yield run.point()
            run.step(index, lr)
        yield run.point()
        return
    matrices = f4().train.inputs[:, : D * D].reshape(-1, D, D)
    x = torch.zeros(D, dtype=torch.float64)
    states, server = [built.worker_init(D, x.dtype)] * WORKERS, built.server_init(D, x.dtype)
    for index in range(T):
        yield x
        step, codes, after = Step(index, lr, tg.Key(seed).fold(step=index)), [], []
        for rank in range(WORKERS):
            code, state = built.worker_step(matrices[rank] @ x - problem[3][rank], states[rank], rank, step)
            codes.append(code)
            after.append(state)
        states = after
        estimate, server = built.server_step(codes, server, step)
        x = x - lr * estimate
    yield x


def measured(problem, method, lr, seeds=1):
    """Means over seeds of the mean ‖∇f‖² over the rounds, and of f(x_T) − f* and ‖x_T − x*‖²."""
    a, b, best, _ = problem
    energy = gap = distance = 0.0
    for seed in range(seeds):
        *along, last = points(problem, method, lr, seed)
        energy += sum(float((a @ x - b).square().sum()) for x in along) / T / seeds
        offset = last - best
        gap += float(offset @ a @ offset) / 2 / seeds
        distance += float(offset @ offset) / seeds
    return energy, gap, distance


def test_the_problem_is_f4(problem):
    a, _, best, each = problem
    assert float(best @ a @ best) / 2 == pytest.approx(GAP, rel=1e-6)
    assert float(best @ best) == pytest.approx(DISTANCE**2, rel=1e-6)
    assert float(each.square().sum(1).mean()) > 0


def test_gradient_descent(problem):
    lr = step_sizes.gd(L=100.0)
    energy, gap, distance = measured(problem, "sgd(identity)", lr)
    assert gap / GAP <= bounds.gd(L=100.0, mu=1.0, T=T, lr=lr)
    assert energy <= bounds.gd_nonconvex(L=100.0, gap=GAP, T=T, lr=lr)
    still = {"L": 100.0, "workers": WORKERS, "sigma2": 0.0, "T": T, "lr": lr}
    assert distance <= bounds.sgd_strongly_convex(mu=1.0, distance=DISTANCE, **still)


def test_compressed_gradient_descent_stalls_within_its_bound(problem):
    lr = step_sizes.sgd_any_data(**only(step_sizes.sgd_any_data, omega=OMEGA))
    more = {"omega": OMEGA, "optimum_energy": OPTIMUM_ENERGY, "distance": DISTANCE, "T": T, "lr": lr}
    limit = bounds.dcgd(**only(bounds.dcgd, **more))
    _, _, distance = measured(problem, "sgd(randk(k=2))", lr, seeds=3)
    assert 1e-4 < distance <= limit


@pytest.mark.parametrize("momentum", [1.0, 0.3])
def test_ef21_and_ef21_sgdm(problem, momentum):
    """All g_i start at zero, so the first error is that of C(∇f_i(x_0))."""
    _, _, _, each = problem
    first = each.square().sort(dim=1).values[:, :-2].sum(1).mean()  # after Top-2 of ∇f_i(0) = −b_i
    if momentum == 1.0:
        lr = step_sizes.ef21(L=100.0, L_mean=114.19, alpha=ALPHA)
        more = {"alpha": ALPHA, "gap": GAP, "T": T, "lr": lr, "first_error": float(first)}
        energy, _, _ = measured(problem, "ef21(topk(k=2))", lr)
        assert energy <= bounds.ef21(**only(bounds.ef21, **more))
        slow = step_sizes.ef21_pl(L=100.0, L_mean=114.19, mu=1.0, alpha=ALPHA)
        _, gap, _ = measured(problem, "ef21(topk(k=2))", slow)
        assert gap <= bounds.ef21_pl(**only(bounds.ef21_pl, **(more | {"lr": slow})))
    lr = step_sizes.ef21_sgdm(L=100.0, L_mean=114.19, alpha=ALPHA, momentum=momentum)
    more = {"alpha": ALPHA, "momentum": momentum, "sigma2": 0.0, "gap": GAP, "T": T, "lr": lr}
    energy, _, _ = measured(problem, f"ef21_sgdm(topk(k=2), momentum={momentum})", lr)
    assert energy <= bounds.ef21_sgdm(**only(bounds.ef21_sgdm, first_error=float(first), **more))


def test_diana(problem):
    lr = step_sizes.diana(**only(step_sizes.diana, omega=OMEGA))
    more = {"omega": OMEGA, "T": T, "lr": lr, "distance": DISTANCE, "optimum_energy": OPTIMUM_ENERGY}
    _, _, distance = measured(problem, "diana(randk(k=2))", lr, seeds=3)
    assert distance <= bounds.diana(**only(bounds.diana, **more))
    slow = step_sizes.diana_nonconvex(**only(step_sizes.diana_nonconvex, omega=OMEGA))
    first = float(problem[3].square().sum(1).mean())  # h_i = 0, ∇f_i(0) = −b_i
    energy, _, _ = measured(problem, "diana(randk(k=2))", slow, seeds=3)
    more = {"omega": OMEGA, "gap": GAP, "T": T, "lr": slow, "first_error": first}
    assert energy <= bounds.diana_nonconvex(**only(bounds.diana_nonconvex, **more))


def test_marina_and_its_permuted_form(problem):
    known = {"omega": OMEGA, "p": 0.1}
    lr = step_sizes.marina(**only(step_sizes.marina, **known))
    energy, _, _ = measured(problem, "marina(randk(k=2), probability=0.1)", lr)
    assert energy <= bounds.marina(**only(bounds.marina, gap=GAP, T=T, lr=lr, **known))
    slow = step_sizes.marina_pl(**only(step_sizes.marina_pl, **known))
    _, gap, _ = measured(problem, "marina(randk(k=2), probability=0.1)", slow)
    assert gap <= bounds.marina_pl(**only(bounds.marina_pl, gap=GAP, T=T, lr=slow, **known))
    apart = {"L": 100.0, "L_spread": 29.69848, "workers": WORKERS, "d": D, "p": 0.1}
    lr = step_sizes.marina_permk(**apart)
    energy, _, _ = measured(problem, "marina(permk(workers=10), probability=0.1)", lr)
    assert energy <= bounds.marina_permk(gap=GAP, T=T, lr=lr, **apart)
