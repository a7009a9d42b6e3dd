"""What docs/theory-sde.md says of algorithms and their SDEs, each claim simulated with a fixed seed.

The figures of that page come from benchmarks/sde.py, with more replicas and points than here.
"""

import math

import numpy as np
import pytest
from scipy.special import expit

import telegrad as tg
from telegrad.theory import stationary
from telegrad.theory.noise_laws import Gaussian, StudentT
from telegrad.theory.sde import Setting, dcsgd, dsgd, dsign, iterate, solve, with_curvature

CAUCHY = StudentT(1.0)
MAKE = {"dsgd": dsgd, "dcsgd": dcsgd, "dsign": dsign}


def identity(x):
    return x


def relaxation(method, setting):
    """Of ½‖x‖², a step."""
    return setting.lr * (setting.noise.slope / setting.scale if method == "dsign" else 1.0)


def floor(method, setting, d, key, accuracy, replicas):
    """The stationary loss by D3.6's protocol, and its standard error: after five relaxation times, until replicas ·
    steps · d · relaxation come to `accuracy`.
    """
    rate = relaxation(method, setting)
    first = math.ceil(5 / rate)
    counts = range(first, first + math.ceil(accuracy / (d * rate * replicas)), max(1, round(0.1 / rate)))
    found = iterate(method, identity, setting, np.zeros((replicas, d)), counts, key)
    means = np.mean([(x**2).sum(axis=1) / 2 for x in found], axis=0)
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(replicas))


@pytest.mark.parametrize(
    ("method", "more", "bracketed"),
    [
        ("dsgd", {}, 0.03166),
        ("dcsgd", {"omega": 9.0}, 0.31914),
        ("dsign", {}, 0.03945),
        ("dsign", {"sigma": 4.0}, 0.15591),
        ("dsign", {"noise": CAUCHY}, 0.04951),
        ("dsign", {"noise": CAUCHY, "sigma": 4.0}, 0.19645),
        ("dsign", {"noise": StudentT(2.0)}, 0.04454),
        ("dsign", {"noise": StudentT(5.0)}, 0.04142),
    ],
)
def test_the_bracketed_numbers_of_d36_come_out_within_three_per_cent(method, more, bracketed):
    measured, error = floor(method, Setting(0.02, 8, **more), 50, tg.Key(1), 2e4, 120)
    assert measured == pytest.approx(bracketed, rel=0.03)
    assert error < 0.012 * bracketed  # so that three per cent say something


@pytest.mark.parametrize(("sigma", "bracketed"), [(1.0, 0.1290), (3.0, 0.3831)])
def test_the_bracketed_numbers_of_d37_come_out_within_three_per_cent(sigma, bracketed):
    """A majority of nine signs, of which `iterate` knows nothing."""
    generator, lr, d, replicas, workers = np.random.default_rng(0), 0.02, 50, 120, 9
    rate = 2.461 * math.sqrt(2 / math.pi) * lr / sigma
    first, x, losses = math.ceil(5 / rate), np.zeros((replicas, d)), []
    for step in range(first + math.ceil(2e4 / (d * rate * replicas))):
        noisy = x + sigma * generator.standard_normal((workers, replicas, d))
        x = x - lr * np.sign(np.sign(noisy).sum(axis=0))
        if step >= first:
            losses.append((x**2).sum(axis=1).mean() / 2)
    assert np.mean(losses) == pytest.approx(bracketed, rel=0.03)


def quadratic():
    curvature = np.linspace(0.2, 2.0, 20)
    return lambda x: curvature * x, lambda x: (curvature * x**2).sum(axis=-1) / 2, np.full(20, 1.5)


def logistic():
    """Separable at a margin, so that only the ridge holds the weights."""
    data = np.random.default_rng(1).standard_normal((80, 10)) + 0.5

    def gradient(x):
        return -expit(-(x @ data.T)) @ data / len(data) + 0.02 * x

    return (
        gradient,
        lambda x: np.logaddexp(0, -(x @ data.T)).mean(axis=-1) + 0.01 * (x**2).sum(axis=-1),
        np.zeros(10),
    )


def network():
    """4 tanh units on 3 inputs, fitted to a sine of the inputs' sum: not convex."""
    generator = np.random.default_rng(2)
    data = generator.standard_normal((60, 3))
    target = np.sin(data.sum(axis=1))

    def inner(x):
        return np.tanh(data @ x[:, :12].reshape(-1, 3, 4))

    def rest(x):
        return (inner(x) @ x[:, 12:, None])[..., 0] - target

    def gradient(x):
        units, error = inner(x), rest(x)[..., None] / len(data)
        back = error * x[:, None, 12:] * (1 - units**2)
        return np.concatenate([(data.T @ back).reshape(len(x), 12), (units * error).sum(axis=1)], axis=1)

    return gradient, lambda x: (rest(x) ** 2).mean(axis=1) / 2, generator.standard_normal(16) / 2


@pytest.mark.parametrize(
    ("method", "more"),
    [("dsgd", {}), ("dcsgd", {"omega": 7.0}), ("dsign", {}), ("dsign", {"noise": CAUCHY})],
)
@pytest.mark.parametrize(
    ("problem", "lr", "sigma"), [(quadratic, 0.02, 0.5), (logistic, 0.05, 0.2), (network, 0.1, 0.2)]
)
def test_the_discrete_mean_lies_in_the_95_per_cent_band_of_the_sde(problem, lr, sigma, method, more):
    """Of 100 replicas, all along; and the two means differ by a few per cent at most, as η says."""
    gradient, loss, start = problem()
    setting = Setting(lr / 5 if method == "dsign" else lr, 8, sigma=sigma, **more)
    counts = [round(k / setting.lr) for k in range(1, 7)]
    begin = np.tile(start, (100, 1))
    discrete = iterate(method, gradient, setting, begin, counts, tg.Key(1))
    times = [count * setting.lr for count in counts]
    smooth = solve(MAKE[method](gradient, setting), begin, times, setting.lr / 2, tg.Key(2))
    for ours, model in zip(map(loss, discrete), map(loss, smooth), strict=True):
        low, high = np.quantile(model, [0.025, 0.975])
        assert low <= ours.mean() <= high
        error = math.hypot(ours.std(), model.std()) / math.sqrt(len(begin))
        assert ours.mean() == pytest.approx(model.mean(), abs=3 * error + 0.03 * model.mean())


@pytest.mark.parametrize(
    ("method", "law", "over", "values", "predicted"),
    [
        ("dcsgd", Gaussian(), "sigma", (0.5, 1.0, 4.0), 2.0),
        ("dsign", Gaussian(), "sigma", (1.0, 2.0, 4.0), 1.0),
        ("dsign", CAUCHY, "sigma", (1.0, 2.0, 4.0), 1.0),
        ("dcsgd", Gaussian(), "workers", (2, 4, 16), -1.0),
        ("dsign", Gaussian(), "workers", (2, 4, 16), -1.0),
        ("dsign", CAUCHY, "workers", (2, 4, 16), -1.0),
        ("dcsgd", Gaussian(), "batch", (1, 4, 16), -1.0),
        ("dsign", Gaussian(), "batch", (1, 4, 16), -0.5),
        ("dsign", CAUCHY, "batch", (1, 4, 16), -0.5),
    ],
)
def test_floors_have_the_slopes_of_d47_in_log_log(method, law, over, values, predicted):
    base = {"workers": 4, "sigma": 4.0 if over == "batch" else 1.0, "omega": 4.0 if method == "dcsgd" else 0.0}
    found = [
        floor(method, Setting(0.05, **{**base, "noise": law, over: value}), 100, tg.Key(number), 6e3, 20)
        for number, value in enumerate(values)
    ]
    slope = np.polyfit(np.log(values), np.log([measured for measured, _ in found]), 1)[0]
    # The ends decide the slope of three points; .02 for the floors' second order in η.
    error = math.hypot(*(error / measured for measured, error in (found[0], found[-1]))) / math.log(
        values[-1] / values[0]
    )
    assert error < 0.02
    assert slope == pytest.approx(predicted, abs=3 * error + 0.02)


def test_the_sign_method_has_the_three_phases_of_d25():
    """½‖x‖² from 8 in every coordinate: constant speed 1 down to a signal of 3/2, exponential decay from ½ on."""
    d, setting = 50, Setting(0.005, 8, sigma=1.0)
    counts = np.arange(20, 4001, 20)
    found = iterate("dsign", identity, setting, np.full((40, d), 8.0), counts, tg.Key(3))
    times, loss = counts * setting.lr, np.array([(x**2).sum(axis=1).mean() / 2 for x in found])
    signal = np.sqrt(2 * loss / d) / setting.scale
    one, three = np.argmax(signal < 1.5), np.argmax(signal < 0.5)
    # Phase 1: √(f − f*) falls along a line (D3.4); it ends when 6.5 of 8 are gone.
    assert np.polyfit(times[: one // 2], np.sqrt(loss[: one // 2]), 1)[0] == pytest.approx(-math.sqrt(d / 2), rel=1e-3)
    assert times[one] == pytest.approx(6.5, abs=0.2)
    # Phase 2: slower than 1, a signal of one takes longer than time 1.
    assert times[three] - times[one] > 1.2
    # Phase 3: D3.3 on the way, and at the end the floor.
    bound = [stationary.sign_bound(setting, loss[three], t - times[three], 1.0, 1.0, d) for t in times[three:]]
    assert np.abs(loss[three:] / np.array(bound) - 1).max() < 0.12
    assert loss[-40:].mean() == pytest.approx(stationary.sign_floor(setting, d), rel=0.04)


def test_signs_bear_infinite_variance_and_sgd_does_not():
    """D4.7: under Cauchy noise SGD's loss is carried by its largest jumps and grows with the time that one waits."""
    signs, _ = floor("dsign", Setting(0.02, 8, noise=CAUCHY), 50, tg.Key(1), 4e3, 40)
    assert signs == pytest.approx(stationary.sign_floor(Setting(0.02, 8, noise=CAUCHY), 50), rel=0.05)
    with pytest.raises(tg.TelegradError, match="no variance"):
        stationary.dsgd_floor(Setting(0.02, 8, noise=CAUCHY), 50)
    means, _ = floor("dsgd", Setting(0.02, 8, noise=CAUCHY), 50, tg.Key(1), 4e3, 40)
    assert means > 100 * signs


@pytest.mark.parametrize("lr", [0.2, 0.8, 1.6])
def test_the_sign_of_the_curvature_term_is_plus_for_the_variance_and_minus_for_the_mean(lr):
    """D5.1 on ½x², 100,000 replicas: + is exact for the stationary variance, − is nearest for E x."""
    setting, replicas = Setting(lr, 1, sigma=1.0), 100_000
    steps = max(1, round(1 / lr))
    counts = [steps, steps + math.ceil(8 / (1 - abs(1 - lr)))]
    first, late = iterate("dsgd", identity, setting, np.ones((replicas, 1)), counts, tg.Key(4))
    variance, error = float((late**2).mean()), float((late**2).std()) / math.sqrt(replicas)
    said = {sign: lr / (2 * (1 - sign * lr / 2)) for sign in (-1, 0, 1)}
    assert variance == pytest.approx(said[1], abs=4 * error)
    assert min(abs(variance - said[0]), abs(variance - said[-1])) > 15 * error
    if lr < 1:  # where a step overshoots, no exponential follows
        errors = {s: abs(float(first.mean()) - math.exp(-(1 - s * lr / 2) * lr * steps)) for s in (-1, 0, 1)}
        assert errors[-1] < errors[0] < errors[1]
    if lr == 0.2:  # the closed forms are those of the equations
        for sign in (1, -1):
            sde = with_curvature(dsgd(identity, setting), identity, lr, sign)
            (found,) = solve(sde, np.zeros((20_000, 1)), [8.0], 0.02, tg.Key(5))
            assert float(found.var()) == pytest.approx(said[sign], rel=0.06)
