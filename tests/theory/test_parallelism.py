import math
import tracemalloc

import numpy as np
import pytest
import torch

import telegrad as tg
from telegrad.errors import ConfigError
from telegrad.theory.parallelism import Problem, ef21_sgd2m_error, ef21_sgdm_error, limit, sgd_error, train

CONSTANTS = {"L": 1.0, "gap": 1.0, "sigma2": 1.0}


def slope(error, samples=(1e14, 1e17)):
    """d log M* / d log N of the number of workers at which a guarantee doubles."""
    found = [limit(lambda m, n=n: error(n, m), error(n, 1e-9)) for n in samples]
    return math.log(found[1] / found[0]) / math.log(samples[1] / samples[0])


def test_the_guarantees_part_ways_at_the_powers_of_b75():
    """MLMC-SGD √N; EF21-SGDM N^¼, and only with double momentum the N^⅓ that the paper attributes to it."""
    assert slope(lambda n, m: sgd_error(n, m, omega=0.0, **CONSTANTS)) == pytest.approx(1 / 2, abs=1e-3)
    assert slope(lambda n, m: ef21_sgdm_error(n, m, alpha=0.1, **CONSTANTS)) == pytest.approx(1 / 4, abs=0.02)
    assert slope(lambda n, m: ef21_sgd2m_error(n, m, alpha=0.1, **CONSTANTS)) == pytest.approx(1 / 3, abs=0.02)


def noiseless(d):
    """½‖x‖² from (d, d−1, …, 1), without noise."""
    start = np.arange(d, 0, -1.0)
    return Problem(
        start, lambda x, count, _: np.repeat(x[:, None, :], count, axis=1), lambda x: (x**2).sum(axis=-1) / 2
    )


@pytest.mark.parametrize(("method", "spec"), [("randk", "randk(k=2)"), ("mlmc", "mlmc(stopk(s=2))")])
def test_the_vectorised_compressors_have_the_moments_of_the_librarys(method, spec):
    """One step of one worker at learning rate 1 leaves x − C(x): mean 0 and E‖·‖² = the library's exact variance."""
    problem, n = noiseless(5), 40_000
    seen = []
    watched = Problem(problem.start, problem.draw, lambda x: seen.append(x.copy()) or (x**2).sum(axis=-1) / 2)
    train(watched, method, 1, 1, np.ones(n), tg.Key(0), k=2)
    (rest,) = seen
    exact = tg.compressor(spec).variance(torch.from_numpy(problem.start))
    energy = (rest**2).sum(axis=1)
    assert energy.mean() == pytest.approx(exact, abs=5 * energy.std() / math.sqrt(n))
    assert (np.abs(rest.mean(axis=0)) <= 5 * rest.std(axis=0) / math.sqrt(n) + 1e-12).all()


def test_ef21_sgdm_makes_the_trace_of_the_library():
    """Top-1 and η = ½ on deterministic gradients: the library's method, worker by worker, gives the same iterates."""
    problem, lr = noiseless(4), 0.3
    measured = [train(problem, "ef21_sgdm", 2, t, np.array([lr]), tg.Key(0), k=1, momentum=0.5)[0] for t in (1, 2, 7)]
    method = tg.method("ef21_sgdm(topk(k=1), momentum=0.5)")
    x = torch.from_numpy(problem.start).clone()
    state, server = method.worker_init(4, x.dtype), method.server_init(4, x.dtype)
    expected = []
    from telegrad.methods.base import Step

    for t in range(7):
        step = Step(t, lr, tg.Key(0).fold(step=t))
        code, state = method.worker_step(x.clone(), state, 0, step)
        estimate, server = method.server_step([code], server, step)
        x = x - lr * estimate
        expected.append(float(x.square().sum()) / 2)
    assert measured == pytest.approx([expected[0], expected[1], expected[6]])


SPECS = {
    "sgd": "sgd(identity)",
    "randk": "sgd(randk(k=3))",
    "mlmc": "sgd(mlmc(stopk(s=3)))",
    "ef21_sgdm": "ef21_sgdm(topk(k=3), momentum=0.3)",
}


def as_problem(task):
    """A quadratic workload whose examples agree, as the experiment wants it: from x − x*, with the workload's noise."""
    curvatures = task.train.inputs.chunk(2, dim=1)[0][0].numpy()

    def draw(x, count, generator):
        exact = np.repeat((curvatures * x)[:, None, :], count, axis=1)
        return exact + task.noise * generator.standard_normal(exact.shape) if task.noise else exact

    return Problem(-task.minimiser(task.train).numpy(), draw, lambda x: (curvatures * x**2).sum(axis=-1) / 2)


def simulated(task, method, steps, seed):
    run = tg.simulate(task, SPECS[method], workers=4, steps=steps, batch_size=1, lr=0.4, seed=seed)
    return run.records[-1]["test"]


@pytest.mark.parametrize("method", ["sgd", "ef21_sgdm"])
def test_without_noise_the_experiment_and_the_simulator_give_the_same_number(method):
    task = tg.workloads.Quadratic(d=12, examples=8, spread=0.0, dtype="float64").load(None, tg.Key(1))
    for steps in (1, 2, 9):
        (found,) = train(as_problem(task), method, 4, steps, np.array([0.4]), tg.Key(0), k=3, momentum=0.3)
        assert found == pytest.approx(simulated(task, method, steps, 0), rel=1e-9)


@pytest.mark.parametrize("method", list(SPECS))
def test_with_noise_they_give_the_same_mean(method):
    """Nine steps of four workers: 4,000 replicas against 40 seeds of the simulator, within four standard errors."""
    task = tg.workloads.Quadratic(d=12, examples=8, spread=0.0, noise=0.5, dtype="float64").load(None, tg.Key(1))
    found = train(as_problem(task), method, 4, 9, np.full(4000, 0.4), tg.Key(2), k=3, momentum=0.3)
    others = np.array([simulated(task, method, 9, seed) for seed in range(40)])
    error = math.hypot(found.std() / math.sqrt(len(found)), others.std(ddof=1) / math.sqrt(len(others)))
    assert found.mean() == pytest.approx(others.mean(), abs=4 * error)
    assert error < 0.1 * found.mean()


def test_many_workers_need_no_more_memory_than_few():
    def noisy(x, count, generator):
        return x[:, None, :] + generator.standard_normal((len(x), count, x.shape[1]))

    problem = Problem(np.ones(50), noisy, lambda x: (x**2).sum(axis=-1) / 2)
    peaks = []
    for workers in (64, 4096):
        tracemalloc.start()
        train(problem, "mlmc", workers, 1, np.array([0.1]), tg.Key(0), k=5)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_averaging_over_workers_divides_the_noise():
    def noisy(x, count, generator):
        return x[:, None, :] + generator.standard_normal((len(x), count, x.shape[1]))

    problem = Problem(np.zeros(20), noisy, lambda x: (x**2).sum(axis=-1) / 2)
    floors = [train(problem, "sgd", m, 400, np.full(40, 0.1), tg.Key(1)).mean() for m in (1, 8)]
    # ½d·ησ²/(N(2 − η)) by D3.6; 40 replicas of 40 correlated steps: within 10 %.
    for workers, found in zip((1, 8), floors, strict=True):
        assert found == pytest.approx(0.5 * 20 * 0.1 / (workers * 1.9), rel=0.1)


def test_divergence_and_bad_input():
    assert train(noiseless(3), "sgd", 1, 500, np.array([3.0, 0.5]), tg.Key(0))[0] == math.inf
    for wrong in ({"method": "topk"}, {"workers": 0}, {"steps": 0}, {"k": 9}, {"chunk": 0}):
        given = {"method": "sgd", "workers": 1, "steps": 1, "lrs": np.ones(1), "key": tg.Key(0)} | wrong
        with pytest.raises(ConfigError):
            train(noiseless(3), **given)
    assert limit(lambda m: 1.0, 1.0, most=7.0) == 7.0
