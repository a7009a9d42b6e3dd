"""SDEs and stationary laws against the numbers of D2, D3 and D5; test_sde_claims.py simulates what they claim."""

import math

import numpy as np
import pytest

import telegrad as tg
from telegrad.errors import ConfigError, DivergedError
from telegrad.theory import stationary
from telegrad.theory.noise_laws import Gaussian, StudentT, Symmetric
from telegrad.theory.sde import Setting, dcsgd, dsgd, dsign, iterate, solve, with_curvature

D36 = {"lr": 0.02, "workers": 8}  # d = 50, λ = 1
CAUCHY = Symmetric(
    lambda y: np.arctan(y) / np.pi + 0.5, lambda u: np.tan(np.pi * (u - 0.5)), 1 / math.pi
)  # Student's t with ν = 1, told by its distribution function


def identity(x):
    return x


def test_slopes_of_the_laws_are_those_of_d25():
    assert [StudentT(nu).slope for nu in (1, 2, 5)] == pytest.approx([0.63662, 0.70711, 0.75921], abs=5e-6)
    assert Gaussian().slope == pytest.approx(0.79788, abs=5e-6)
    assert StudentT(1e7).slope == pytest.approx(Gaussian().slope, rel=1e-6)
    assert CAUCHY.slope == pytest.approx(StudentT(1.0).slope)


def test_sign_means_are_erf_and_the_hypergeometric_form_of_d24():
    from scipy.special import erf, hyp2f1

    y = np.linspace(-4, 4, 33)
    assert np.abs(Gaussian().sign_mean(y) - erf(y / math.sqrt(2))).max() < 1e-12
    for nu in (1.0, 2.0, 3.5):
        factor = math.gamma((nu + 1) / 2) / (math.sqrt(math.pi * nu) * math.gamma(nu / 2))
        xi = y * factor * hyp2f1(0.5, (nu + 1) / 2, 1.5, -(y**2) / nu)
        assert np.abs(StudentT(nu).sign_mean(y) - 2 * xi).max() < 1e-12
    assert np.abs(CAUCHY.sign_mean(y) - StudentT(1.0).sign_mean(y)).max() < 1e-12


def test_stationary_losses_are_those_of_d36_and_d37():
    d = 50
    assert stationary.dsgd_floor(Setting(**D36), d) == pytest.approx(0.03125)
    assert stationary.dsgd_floor_discrete(Setting(**D36), d, 1.0) == pytest.approx(0.03157, abs=5e-6)
    sparse = Setting(**D36, omega=9.0)
    assert stationary.dcsgd_floor(sparse, d, 1.0) == pytest.approx(0.31606, abs=5e-6)
    assert stationary.dcsgd_floor_discrete(sparse, d, 1.0) == pytest.approx(0.31928, abs=5e-6)
    for law, one, four in ((Gaussian(), 0.03917, 0.15666), (StudentT(1.0), 0.04909, 0.19635)):
        found = [stationary.sign_floor(Setting(**D36, sigma=sigma, noise=law), d) for sigma in (1.0, 4.0)]
        assert found == pytest.approx([one, four], abs=1e-5)
    floors = [stationary.sign_floor(Setting(**D36, noise=StudentT(nu)), d) for nu in (2.0, 5.0)]
    assert floors == pytest.approx([0.04419, 0.04116], abs=5e-6)
    many = stationary.majority_floor(Setting(0.02, 100_001), d)  # binomials beyond float64
    assert many == pytest.approx(0.02 * d * math.pi / (8 * math.sqrt(100_001)), rel=1e-4)
    votes = [stationary.majority_floor(Setting(0.02, 9, sigma=sigma), d) for sigma in (1.0, 3.0)]
    assert votes == pytest.approx([0.1273, 0.3820], abs=5e-5)


def test_the_refined_sign_floor_is_the_stationary_point_of_its_moment_equation():
    setting, lam = Setting(0.05, 4, batch=2, sigma=3.0), 1.7
    x2 = stationary.sign_floor_refined(setting, 1, lam) * 2 / lam
    slope = math.sqrt(2 / math.pi) * lam * math.sqrt(2) / 3.0
    drift, noise = -2 * slope * x2, 0.05 / 4 * (1 - slope**2 * x2)
    assert drift + noise == pytest.approx(0.0, abs=1e-15)
    # The form of the issue: (η/2N)/(aλ√B/σ + (η/πN)λ²B/σ²), a = √(2/π).
    a = math.sqrt(2 / math.pi)
    assert x2 == pytest.approx((0.05 / 8) / (a * lam * math.sqrt(2) / 3 + 0.05 / (math.pi * 4) * lam**2 * 2 / 9))


@pytest.mark.parametrize("law", [Gaussian(), StudentT(1.0), CAUCHY])
@pytest.mark.parametrize("method", ["dsgd", "dcsgd", "dsign"])
def test_one_step_has_the_mean_and_variance_of_the_sde(method, law):
    """D1, D2: E(x⁺ − x) = η · drift and Var(x⁺ − x) = η · spread²; 40,000 replicas, five standard errors."""
    if method != "dsign" and math.isinf(law.variance):
        pytest.skip("no such equation: the noise has no variance")
    setting = Setting(0.1, 3, batch=4, sigma=2.0, noise=law, omega=2.0 if method == "dcsgd" else 0.0)
    start = np.tile(np.array([0.0, 0.3, -1.0, 4.0]), (40_000, 1))
    sde = {"dsgd": dsgd, "dcsgd": dcsgd, "dsign": dsign}[method](identity, setting)
    (after,) = iterate(method, identity, setting, start, [1], tg.Key(2))
    move, n = after - start, len(start)
    mean, variance = sde.drift(start)[0] * setting.lr, sde.spread(start)[0] ** 2 * setting.lr
    assert (np.abs(move.mean(axis=0) - mean) <= 5 * np.sqrt(variance / n) + 1e-12).all()
    spread = np.abs((move - mean) ** 2 - variance)
    assert (np.abs(move.var(axis=0) - variance) <= 5 * spread.std(axis=0) / math.sqrt(n) + 1e-12).all()


def test_the_solver_gives_the_ornstein_uhlenbeck_law():
    setting = Setting(0.1, 2, sigma=1.0)
    early, late = solve(dsgd(identity, setting), np.ones((4000, 5)), [1.0, 10.0], 0.01, tg.Key(3))
    assert early.mean() == pytest.approx(math.exp(-1), abs=5 * 0.15 / math.sqrt(20_000))
    assert late.var() == pytest.approx(0.1 / 2 / 2, rel=5 * math.sqrt(2 / 20_000) + 0.005)


def test_bounds_hold_and_reach_the_floor():
    setting, d = Setting(0.05, 4, sigma=1.0, omega=3.0), 20
    times = [0.5, 1.0, 2.0, 8.0]
    # The bound of sign SGD is that of its phase 3: gradients far below the noise.
    for sde, first, bound in (
        (dcsgd(identity, setting), 1.0, stationary.dcsgd_bound),
        (dsign(identity, setting), 0.1, stationary.sign_bound),
    ):
        for time, x in zip(times, solve(sde, np.full((200, d), first), times, 0.01, tg.Key(4)), strict=True):
            loss = (x**2).sum(axis=1) / 2
            limit = bound(setting, d * first**2 / 2, time, 1.0, 1.0, d)
            assert loss.mean() - 3 * loss.std() / math.sqrt(200) <= limit
    assert stationary.dcsgd_bound(setting, 9.0, 1e9, 1.0, 1.0, d) == pytest.approx(
        stationary.dcsgd_floor(setting, d, 1.0)
    )
    assert stationary.sign_bound(setting, 9.0, 1e9, 1.0, 1.0, d) == pytest.approx(stationary.sign_floor(setting, d))
    assert stationary.sign_phase_one(9.0, 100.0, 1.0) == 0.0
    assert stationary.dsgd_bound(setting, 9.0, 0.0, 1.0, 1.0, d) == 9.0


def test_gradient_bounds_hold_on_a_nonconvex_function():
    """D3.5 on Σ(1 − cos x_j), L = 1, by the algorithms themselves: mean of E‖∇f‖² over the steps."""
    d, steps, replicas = 10, 40, 100

    def gradient(x):
        return np.sin(x)

    for method, setting, first, bound in (
        ("dsgd", Setting(0.05, 4, sigma=1.0), 2.0, stationary.dcsgd_gradient_bound),
        ("dcsgd", Setting(0.05, 4, sigma=1.0, omega=7.0), 2.0, stationary.dcsgd_gradient_bound),
        ("dsign", Setting(0.05, 4, sigma=3.0), 0.5, stationary.sign_gradient_bound),  # in its phase 3
        ("dsign", Setting(0.05, 4, sigma=3.0, noise=StudentT(1.0)), 0.5, stationary.sign_gradient_bound),
    ):
        start = np.full((replicas, d), first)
        visited = [start, *iterate(method, gradient, setting, start, range(1, steps), tg.Key(7))]
        each = np.mean([(np.sin(x) ** 2).sum(axis=1) for x in visited], axis=0)
        limit = bound(setting, d * (1 - math.cos(first)), setting.lr * steps, 1.0, d)
        assert each.mean() + 1.66 * each.std() / math.sqrt(replicas) <= limit
        assert limit < 20 * each.mean()  # and the bound says something
    quiet = stationary.dcsgd_gradient_bound(Setting(0.1, sigma=0.0), 3.0, 2.0, 1.0, d)
    assert quiet == pytest.approx(1.5)
    assert stationary.dcsgd_gradient_bound(Setting(0.1, 2, sigma=2.0, omega=4.0), 3.0, 2.0, 1.0, 5) == pytest.approx(
        (1.5 + 0.1 * 5 * 20 / 4) / (1 - 0.1)
    )


@pytest.mark.parametrize(("sign", "per_step"), [(1, math.exp(-0.5 * (1 - 0.25))), (-1, math.exp(-0.5 * (1 + 0.25)))])
def test_the_curvature_terms_decay_as_d51_says(sign, per_step):
    """At ηλ = ½ the iterates shrink by .5; the + term gives .6873 and the classical − term .5353."""
    assert per_step == pytest.approx({1: 0.6873, -1: 0.5353}[sign], abs=5e-5)
    setting = Setting(0.5, 1, sigma=0.0)
    sde = with_curvature(dsgd(identity, setting), identity, 0.5, sign)
    (after,) = solve(sde, np.ones((1, 1)), [0.5], 1e-5, tg.Key(0))
    assert after.item() == pytest.approx(per_step, rel=1e-4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: StudentT(0.0), "nu=0.0.*above 0"),
        (lambda: Setting(-0.1), "lr=-0.1"),
        (lambda: Setting(0.1, workers=0), "workers=0"),
        (lambda: dsgd(identity, Setting(0.1, noise=StudentT(2.0))), "no variance"),
        (lambda: dsign(identity, Setting(0.1, sigma=0.0)), "sigma=0"),
        (lambda: stationary.dcsgd_floor(Setting(0.5, 1, omega=9.0), 5, 1.0), "unstable"),
        (lambda: stationary.majority_floor(Setting(0.1, 8), 5), "an odd number"),
        (lambda: Symmetric(lambda y: 0 * y + 0.4, lambda u: u, 1.0), "not symmetric"),
        (lambda: Symmetric(lambda y: 0 * y + 0.5, lambda u: u, 1.0), "does not rise"),
        (lambda: Symmetric(lambda y: 0.5 + y, lambda u: u - 0.5, 1.0), "from 0 to 1"),
        (lambda: Symmetric(CAUCHY.cdf, lambda u: u, CAUCHY.density), "not the inverse"),
        (lambda: Symmetric(CAUCHY.cdf, CAUCHY.quantile, 1.0), "slope 0.3183 at 0"),
        (lambda: iterate("sgd", identity, Setting(0.1), np.zeros((1, 1)), [1], tg.Key(0)), "dsgd, dcsgd or dsign"),
        (lambda: solve(dsgd(identity, Setting(0.1)), np.zeros((1, 1)), [1.0], 0.0, tg.Key(0)), "step=0.0"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_unstable_steps_are_told():
    with pytest.raises(DivergedError, match="blow up"):
        iterate("dsgd", identity, Setting(3.0), np.ones((2, 2)), [2000], tg.Key(0))
    with pytest.raises(DivergedError, match="blow up"):
        solve(dsgd(lambda x: 100 * x, Setting(0.1)), np.ones((2, 2)), [100.0], 0.1, tg.Key(0))
