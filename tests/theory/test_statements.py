"""Step sizes and bounds against the numbers of the algorithm reference, closed forms, and their own algebra."""

import itertools
import math
import random

import pytest
import torch

import telegrad as tg
from telegrad.errors import ConfigError
from telegrad.theory import bounds, step_sizes, traffic
from telegrad.theory.constants import CONSTANTS, parse_constants
from telegrad.theory.equilibrium import equilibrium
from telegrad.theory.statements import evaluate, stated_methods, statements_of

T2 = {"L": 2.0, "L_mean": math.sqrt(6.5)}  # the tiny problem of 0.4: omega = 1, alpha = 1/2, two workers
GRID = [
    {"L": L, "workers": M, "sigma2": s, "distance": D, "gap": D**2 / 3, "T": T, "omega": w, "xi2": x}
    for L, M, s, D in itertools.product((0.3, 2.0), (1, 8), (0.0, 4.0), (0.5, 3.0))
    for T, w, x in itertools.product((10, 1000), (0.0, 7.0), (0.0, 1.0))
]


def only(function, constants):
    """Those of the constants that the function takes."""
    wanted = next(one for m in stated_methods() for one in statements_of(m) if one.function is function).wants
    return {name: value for name, value in constants.items() if name in wanted}


def test_step_sizes_on_the_tiny_problem_are_those_of_f3():
    found = {
        "ef21": step_sizes.ef21(**T2, alpha=0.5),
        "ef_bv top": step_sizes.ef_bv(**T2, eta=math.sqrt(0.5), spread=0.0, workers=2),
        "ef_bv rand": step_sizes.ef_bv(**T2, eta=0.0, spread=1.0, workers=2),
        "diana": step_sizes.diana(L=2.0, L_max=3.0, omega=1.0, workers=2),
        "marina": step_sizes.marina(**T2, omega=1.0, workers=2, p=0.5),
        "permk": step_sizes.marina_permk(L=2.0, L_spread=1.0, workers=2, d=2, p=0.5),
        "dasha paper": step_sizes.dasha_as_printed(**T2, omega=1.0, workers=2),
        "dasha": step_sizes.dasha(**T2, omega=1.0, workers=2),
        "adiana": step_sizes.adiana(L_max=3.0, mu=1.5, omega=1.0, workers=2)["lr"],
        "scaffnew": step_sizes.scaffnew(L_max=3.0, mu_min=1.0)["lr"],
    }
    printed = [0.122623, 0.074940, 0.088791, 0.090909, 0.262966, 0.333333, 0.069013, 0.155863, 1 / 384, 1 / 3]
    assert [round(value, 6) for value in found.values()] == [round(value, 6) for value in printed]


def test_parameters_on_the_tiny_problem_are_those_of_c7_and_c9():
    weights = step_sizes.ef_bv_weights(eta=0.0, spread=1.0, workers=2)
    assert [weights[name] for name in ("lambda", "nu", "r", "r_mean")] == pytest.approx([1 / 2, 2 / 3, 1 / 2, 1 / 3])
    assert weights["s"] == pytest.approx(0.2247449, abs=1e-7)
    adiana = step_sizes.adiana(L_max=3.0, mu=1.5, omega=1.0, workers=2)
    assert [adiana[n] for n in ("p", "theta1", "gamma")] == pytest.approx([0.25, 0.125, 1 / 99])
    assert adiana["beta"] == pytest.approx(0.9848485, abs=1e-7)
    assert step_sizes.scaffnew(L_max=3.0, mu_min=1.0)["p"] == pytest.approx(1 / math.sqrt(3))


def test_frontiers_are_those_of_c8_and_c10():
    diana = [step_sizes.diana_frontier(workers=n) for n in range(1, 6)]
    assert diana == pytest.approx([0.457427, 0.780776, 1, 1.154701, 1.268790], abs=5e-7)
    marina = [step_sizes.marina_frontier(workers=n) for n in range(1, 6)]
    assert marina == pytest.approx([1, 1.280776, 1.435782, 1.535184, 1.604589], abs=5e-7)


@pytest.mark.parametrize("method", ["diana", "marina"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_at_the_frontier_the_second_moment_matrix_has_spectral_radius_one(method, n):
    """C8.4 and C10.5: the exact second moments of the method over all coins, on alike scalar quadratics."""
    s = getattr(step_sizes, f"{method}_frontier")(workers=n)
    moments = 0
    for coins in itertools.product((0.0, 1.0), repeat=n):
        if method == "diana":  # state (x, k_1 … k_n)
            step = torch.eye(n + 1, dtype=torch.float64)
            step[0, 0] -= s * 2 / n * sum(coins)
            for i, coin in enumerate(coins):
                step[0, 1 + i] = -s * (1 / n - 2 / n * coin)
                step[1 + i, 0], step[1 + i, 1 + i] = coin, 1 - coin
            choices = [(1.0, step)]
        else:  # state (x, g)
            refreshed = torch.tensor([[1.0, -s], [1.0, -s]], dtype=torch.float64)
            kept = torch.tensor([[1.0, -s], [0.0, 1 - 2 * s / n * sum(coins)]], dtype=torch.float64)
            choices = [(0.5, refreshed), (0.5, kept)]
        for weight, step in choices:
            moments = moments + weight * torch.kron(step, step) / 2**n
    assert float(torch.linalg.eigvals(moments).abs().max()) == pytest.approx(1.0, abs=1e-9)


def test_equilibrium_times_are_those_of_c17():
    two = equilibrium((1, 2), (1, 1), 1, 1)
    assert (two.seconds, two.gradients, two.messages) == (pytest.approx(1 + math.sqrt(5)), (3, 1), (3, 3))
    assert two.weight == pytest.approx(1.8857, abs=5e-5)
    assert equilibrium((1,), (1,), 1, 1).seconds == pytest.approx(2 + 2 * math.sqrt(2))
    with pytest.raises(ConfigError, match="send=-1: a number from 0"):
        equilibrium((1,), (-1,), 1, 1)


def test_equilibrium_weight_is_at_least_one():
    draws = tg.Key(3).uniform(4 * 200 * 6).view(200, 4, 6)
    for h, tau, rest, _ in draws:
        found = equilibrium((5 * h).tolist(), (5 * tau).tolist(), float(9 * rest[0]), float(9 * rest[1]))
        assert found.weight >= 1


@pytest.mark.parametrize(
    ("step", "bound", "at"),
    [
        (step_sizes.sgd_convex, bounds.sgd_tuned_convex, bounds.sgd_convex),
        (step_sizes.sgd_nonconvex, bounds.sgd_tuned_nonconvex, bounds.sgd_nonconvex),
        (step_sizes.sgd_paper_convex, bounds.sgd_paper_convex, bounds.sgd_paper_convex_at),
        (step_sizes.sgd_paper_nonconvex, bounds.sgd_paper_nonconvex, bounds.sgd_paper_nonconvex_at),
    ],
)
def test_the_bound_at_the_best_step_covers_the_bound_at_any_step(step, bound, at):
    for constants in GRID:
        lr = step(**only(step, constants))
        if math.isinf(lr):
            continue
        tuned, exact = bound(**only(bound, constants)), at(lr=lr, **only(at, constants))
        assert exact <= tuned * (1 + 1e-12)


def test_the_printed_constant_of_89_is_below_what_its_own_algebra_gives():
    """B7.2: at the printed step, (88) exceeds the printed (89) where noise dominates."""
    noisy = {"L": 1.0, "workers": 8, "sigma2": 100.0, "distance": 1.0, "T": 100_000, "omega": 7.0}
    lr = step_sizes.sgd_paper_convex(**noisy)
    exact = bounds.sgd_paper_convex_at(lr=lr, **only(bounds.sgd_paper_convex_at, noisy))
    assert bounds.sgd_paper_convex_as_printed(**noisy) < exact <= bounds.sgd_paper_convex(**noisy)


@pytest.mark.parametrize("convex", [True, False])
def test_the_corrected_constants_for_unlike_workers_cover_their_proof(convex):
    """B7.3: the two-term bound of the proof, at the corrected step, is within the corrected closed form."""
    for constants in GRID:
        omega, sigma2, xi2 = constants["omega"], constants["sigma2"], constants["xi2"]
        stays = 4 * (3 * omega + 1) * sigma2 + 12 * omega * xi2
        if convex:
            lr = step_sizes.sgd_paper_convex_unlike(**only(step_sizes.sgd_paper_convex_unlike, constants))
            proof = constants["distance"] ** 2 / (lr * constants["T"]) + lr * stays / constants["workers"]
            closed = bounds.sgd_paper_convex_unlike(**only(bounds.sgd_paper_convex_unlike, constants))
        else:
            lr = step_sizes.sgd_paper_nonconvex_unlike(**only(step_sizes.sgd_paper_nonconvex_unlike, constants))
            proof = 4 * constants["gap"] / (lr * constants["T"]) + lr * stays * constants["L"] / constants["workers"]
            closed = bounds.sgd_paper_nonconvex_unlike(**only(bounds.sgd_paper_nonconvex_unlike, constants))
        assert proof <= closed * (1 + 1e-12)


def test_units_are_consistent():
    """Other units of length, loss and time change each result by its own unit: what is printed without √Δ does not."""
    c, u = 3.0, 7.0  # length c, loss u
    scale = {
        "loss / length²": u / c**2, "loss": u, "length": c, "gradient²": (u / c) ** 2, "1": 1.0, "bits": 1.0,
        "length² / loss": c**2 / u, "length²": c**2, "gradient": u / c,
    }  # fmt: skip
    base = dict.fromkeys(CONSTANTS, 1.5) | {
        "workers": 8,
        "d": 100,
        "T": 50,
        "batch": 4,
        "samples": 90,
        "local_steps": 3,
        "owners": 2,
        "cohort": 4,
        "alpha": 0.3,
        "eta": 0.4,
        "p": 0.2,
        "momentum": 0.1,
        "lr": 1e-3,
        "mu": 0.2,
        "mu_min": 0.1,
        "omega": 3.0,
    }
    changed = {name: value * scale[CONSTANTS[name].unit] for name, value in base.items()}
    wrong = set()
    for one in (one for m in stated_methods() for one in statements_of(m)):
        before, after = (one.function(**{n: given[n] for n in one.wants}) for given in (base, changed))
        if isinstance(before, dict):
            before, after = before.get("lr", 1.0), after.get("lr", 1.0)
        # γ‖g‖ of sign methods is a length per step: their step sizes are lengths over square roots of losses.
        if one.method != "sign_majority" and not math.isclose(after, before * scale[one.unit], rel_tol=1e-9):
            wrong.add(one.function.__name__)
    assert wrong == {
        "sgd_paper_nonconvex_as_printed",
        "sgd_paper_nonconvex_unlike_as_printed",
    }


def test_the_bounds_of_b74_cover_simulated_mlmc_sgd():
    """B7.4's test: f = ½Σa_jx_j², s-Top-k MLMC with s = 4 (ω = 7), noise of total variance 4, eight workers."""
    d, workers, T = 32, 8, 400
    a = torch.linspace(0.2, 2.0, d, dtype=torch.float64)
    start = torch.full((d,), 0.8, dtype=torch.float64)
    compressor = tg.compressor("mlmc(stopk(s=4))")
    gap, distance = float((a * start**2).sum()) / 2, float(start.norm())
    assert compressor.omega(d) == pytest.approx(7)
    known = {"L": 2.0, "workers": workers, "sigma2": 4.0, "omega": 7.0, "T": T}
    rates = step_sizes.sgd_convex(distance=distance, **known), step_sizes.sgd_nonconvex(gap=gap, **known)
    assert rates == pytest.approx((0.1131, 0.0839), abs=5e-5)
    limits = (
        bounds.sgd_tuned_convex(distance=distance, **known),
        bounds.sgd_tuned_nonconvex(gap=gap, **known),
        bounds.sgd_strongly_convex(lr=rates[0], distance=distance, mu=0.2, **known),
    )
    assert limits == pytest.approx((0.549, 1.554, 2.265), abs=5e-4)
    measured = torch.zeros(3, dtype=torch.float64)
    seeds = 1
    for seed in range(seeds):
        for number, lr in enumerate(rates):
            x, mean, energy = start.clone(), torch.zeros(d, dtype=torch.float64), 0.0
            for t in range(T):
                mean += x / T
                energy += float((a * x).square().sum()) / T
                estimate = torch.zeros(d, dtype=torch.float64)
                for rank in range(workers):
                    key = tg.Key(seed).fold(step=t, rank=rank, run=number)
                    gradient = a * x + key.fold(role="noise").normal(d) * math.sqrt(4 / d)
                    compressor.encode(gradient, key).add_to(estimate, 1 / workers)
                x -= lr * estimate
            if number == 0:
                measured[0] += float((a * mean.square()).sum()) / 2 / seeds
                measured[2] += float(x.square().sum()) / seeds
            else:
                measured[1] += energy / seeds
    # The reference's means over 30 seeds are .011, .51 and .21; the bounds are 50, 3 and 11 times these.
    assert bool((measured <= torch.tensor(limits)).all()), measured
    assert float(measured[1]) == pytest.approx(0.51, rel=0.25)


def test_special_cases_agree_between_methods():
    plain = {"L": 2.0, "workers": 8}
    assert step_sizes.sgd(**plain, omega=0.0) == step_sizes.gd(L=2.0)
    assert step_sizes.diana(L=2.0, L_max=3.0, omega=0.0, workers=8) == 0.5
    assert step_sizes.marina(L=2.0, L_mean=2.0, omega=5.0, workers=8, p=1.0) == 0.5
    assert step_sizes.dasha(L=2.0, L_mean=2.0, omega=0.0, workers=8) == 0.5
    assert step_sizes.ef21(L=2.0, L_mean=2.0, alpha=1.0) == 0.5
    assert step_sizes.ef_bv(L=2.0, L_mean=2.0, eta=0.0, spread=0.0, workers=8) == 0.5
    assert step_sizes.adiana(L_max=2.0, mu=1.0, omega=0.0, workers=8)["lr"] == 0.25
    everyone = step_sizes.compressed_scaffnew(L_max=2.0, mu_min=1.0, workers=8, owners=8)
    assert everyone["chi"] == pytest.approx(1.0)
    assert traffic.marina(message_bits=10.0, p=1.0, d=4) == traffic.dense(d=4)


def test_the_contraction_of_compressed_scaffnew_gives_the_steps_of_c15():
    """C15's bounds on the steps to Ψ ≤ 1e-10 Ψ_0 on the F4 problem: 5,568, 7,050 and 18,067."""
    known = {"L_max": 140.546, "mu_min": 0.58, "workers": 10}
    for owners, steps in ((10, 5568), (5, 7050), (2, 18067)):
        one = math.log(bounds.compressed_scaffnew(**known, owners=owners, T=1))
        assert math.log(1e-10) / one == pytest.approx(steps, rel=2e-3)


def test_a_step_size_above_the_limit_is_refused():
    with pytest.raises(ConfigError, match=r"lr=0\.6 .* up to 0\.5"):
        bounds.gd(L=2.0, mu=1.0, T=10, lr=0.6)
    with pytest.raises(ConfigError, match="covered"):
        bounds.sgd_convex(L=2.0, workers=1, sigma2=1.0, distance=1.0, T=10, lr=0.2, omega=9.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["L=-2"], "L=-2.*above 0"),
        (["workers=2.5"], "workers=2.5.*an integer from 1"),
        (["alpha=1.5"], "alpha=1.5.*up to 1"),
        (["alpa=0.5"], "did you mean 'alpha'"),
        (["L"], "NAME=NUMBER"),
        (["L=two"], "NAME=NUMBER"),
        (["L=1", "L=2"], "twice"),
        (["L=inf"], "L=inf"),
    ],
)
def test_bad_constants_are_explained(words, said):
    with pytest.raises(ConfigError, match=said):
        parse_constants(words)


def everything():
    return [one for method in stated_methods() for one in statements_of(method)]


def test_nonsense_is_refused_by_every_statement():
    """3,000 draws of constants, one in eight of them nonsense or extreme: `ConfigError`, or numbers from 0."""
    draw = random.Random(0)
    strange = [-1, 0, 1e-300, 1e300, math.nan, math.inf, None, "x", True, 10**400, 2.5]
    for one in (draw.choice(everything()) for _ in range(3000)):
        constants = {
            name: draw.choice(strange)
            if draw.random() < 0.125
            else draw.choice([1, 2, 3] if CONSTANTS[name].range.whole else [1e-5, 0.5, 1.0])
            for name in one.wants
        }
        try:
            value = one.function(**constants)
        except ConfigError:
            continue
        numbers = value.values() if isinstance(value, dict) else [value]
        assert not any(math.isnan(number) for number in numbers), (one.function.__name__, constants)
        assert isinstance(value, dict) or value >= 0, (one.function.__name__, constants)


@pytest.mark.parametrize(
    ("small", "large"), [("mu=3", "L=2"), ("mu_min=3", "L_max=2"), ("owners=5", "workers=4"), ("cohort=5", "workers=4")]
)
def test_constants_that_contradict_each_other_are_refused(small, large):
    with pytest.raises(ConfigError, match=f"{small} .* is above {large} .*at most that is allowed"):
        parse_constants([small, large])


def test_a_statement_explains_itself():
    """Formula, units, constants, errors and source, for `help`."""
    for one in everything():
        text = one.function.__doc__
        assert text.startswith(one.text)
        assert f"Source: {one.source}." in text
        assert all(f"    {name}: " in text and CONSTANTS[name].meaning in text for name in one.wants)
        assert one.unit == "1" or f"In units of {one.unit}." in text


@pytest.mark.parametrize(
    ("bound", "more"),
    [
        (bounds.sgd_paper_convex_at, {"distance": 1.0, "lr": 0.26}),
        (bounds.sgd_paper_nonconvex_at, {"gap": 1.0, "lr": 0.51}),
        (bounds.sgd_down, {"gap": 1.0, "omega_down": 1.0, "lr": 0.6}),
        (bounds.vr_marina, {"gap": 1.0, "L_mean": 2.0, "L_sample": 2.0, "p": 0.5, "batch": 1, "lr": 0.51}),
        (bounds.local_sgd, {"gap": 1.0, "local_steps": 4, "lr": 0.01}),
    ],
)
def test_a_step_size_that_a_bound_does_not_cover_is_refused(bound, more):
    given = {"L": 2.0, "workers": 4, "sigma2": 1.0, "T": 10, "omega": 0.0} | more
    with pytest.raises(ConfigError, match=r"lr=.* more than theory allows here: step sizes .* are covered"):
        bound(**only(bound, given))


def test_what_is_missing_and_what_is_assumed_is_told():
    ef21 = statements_of("ef21")[0]
    assert evaluate(ef21, {"L": 2.0}) == (None, ["alpha"], ["L_mean=L"])
    value, missing, assumed = evaluate(ef21, {"L": 2.0, "alpha": 0.5})
    assert (value, missing, assumed) == (step_sizes.ef21(L=2.0, L_mean=2.0, alpha=0.5), [], ["L_mean=L"])
    with pytest.raises(ConfigError, match="did you mean 'ef21'"):
        statements_of("ef22")


def test_every_method_of_f2_has_its_theory():
    f2 = "gd sgd ef14 ef21 ef21_sgdm ef_bv diana adiana marina marina_permk dasha scaffnew compressed_scaffnew tamuna"
    for method in [*f2.split(), "shadowheart", "mlmc_local", "local_sgd", "sign_majority"]:
        assert {one.kind for one in statements_of(method)} == {"step size", "bound", "bits"}, method
