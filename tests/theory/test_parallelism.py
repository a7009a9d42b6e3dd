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
