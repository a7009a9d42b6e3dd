"""mix and comp (A19), by enumeration; and the relative bias and the spread of every compressor (0.5)."""

import itertools
import math

import pytest
import torch

import telegrad as tg
from cases import COMPRESSORS, T1, by_spec, numbers

GENERATOR = torch.Generator().manual_seed(19)


def outcomes(c, x, count):
    """The `count` different estimates that keys give, each once; all are equally likely."""
    found = {}
    for seed in range(3000):
        estimate = numbers(c.encode(x, tg.Key(seed)))
        found.setdefault(tuple(estimate.tolist()), estimate)
        if len(found) == count:
            break
    assert len(found) == count
    return torch.stack(list(found.values()))


def bias_and_spread(drawn, x):
    mean = drawn.mean(0)
    return float(torch.linalg.vector_norm(mean - x)), float((drawn - mean).square().sum(1).mean())


CASES = [
    ("mix(k=1, k2=1)", 6, math.comb(5, 1), 0.730297, 0.133333),
    ("mix(k=2, k2=2)", 6, math.comb(4, 2), 2 / math.sqrt(24), 4 / 24),
    ("mix(k=1)", 5, math.comb(4, 1), 3 / math.sqrt(20), 3 / 20),
    ("comp(k=1, k2=2)", 6, math.comb(2, 1), 0.816497, 1.0),
    ("comp(k=2, k2=5)", 6, math.comb(5, 2), math.sqrt(1 / 6), 1.5),
    ("comp(k=2, k2=3)", 7, math.comb(3, 2), math.sqrt(4 / 7), 0.5),
    ("comp(k=2)", 6, math.comb(4, 2), math.sqrt(1 / 3), 1.0),
]


@pytest.mark.parametrize(("spec", "d", "count", "eta", "spread"), CASES)
def test_enumerated_bias_and_spread(spec, d, count, eta, spread):
    """A19.1, A19.2; d = 6: mix(1,1): η = .730297, ω = .133333; comp(1,2): η = .816497, ω = 1."""
    c = tg.compressor(spec)
    assert c.eta(d) == pytest.approx(eta, abs=5e-7)
    assert c.spread(d) == pytest.approx(spread, abs=5e-7)
    x = 1 + torch.randn(d, generator=GENERATOR, dtype=torch.float64) ** 2
    drawn, norm = outcomes(c, x, count), float(torch.linalg.vector_norm(x))
    bias, about_mean = bias_and_spread(drawn, x)
    assert bias <= eta * norm + 1e-5
    assert about_mean <= spread * norm**2 + 1e-5
    assert torch.allclose(c._mean(x), drawn.mean(0), rtol=1e-12)
    assert c.variance(x) == pytest.approx(float((drawn - x).square().sum(1).mean()), rel=1e-9)
    assert c.variance(x) == pytest.approx(bias**2 + about_mean, rel=1e-9)


@pytest.mark.parametrize("spec", ["mix(k=1, k2=2)", "mix(k=3, k2=1)", "comp(k=2, k2=3)", "comp(k=3, k2=6)"])
def test_equal_magnitudes_attain_the_constants(spec):
    """A19: mix: η, ω and α at constant |v|; comp: η and α there, ω where k′ entries at most are not zero."""
    c, x = tg.compressor(spec), torch.tensor([0.5, -0.5] * 4, dtype=torch.float64)
    bias = torch.linalg.vector_norm(c._mean(x) - x)
    assert float(bias) == pytest.approx(c.eta(8) * math.sqrt(2), rel=1e-12)
    if c.alpha(8) > 0:
        assert c.variance(x) == pytest.approx(2 * (1 - c.alpha(8)), rel=1e-12)
    if spec.startswith("comp"):
        x[3:] = 0.0
    about_mean = c.variance(x) - float((c._mean(x) - x).square().sum())
    if spec.startswith("mix") or c._counts(8)[1] >= 3:
        assert about_mean == pytest.approx(c.spread(8) * float(x.square().sum()), rel=1e-9)


def test_comp_is_contractive_below_twice_k_only():
    """The worst of ‖x − Top-k′‖² + (k′/k − 1) ‖Top-k′‖² over shares of energy in the top from k′/d to 1."""
    for k, among in itertools.product(range(1, 6), range(1, 11)):
        if k <= among:
            shares = torch.linspace(among / 10, 1, 101)
            worst = float((1 - shares + (among / k - 1) * shares).max())
            assert tg.compressor(f"comp(k={k}, k2={among})").alpha(10) == pytest.approx(max(0, 1 - worst), abs=1e-6)


def test_mix_and_comp_are_mlmc_instances():
    """B11.6: mix = base Top-k + λ · uniform residual; comp = Top-k′ truncated, k draws without replacement."""
    x = torch.tensor([4.0, -3.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    rest = [torch.where(torch.arange(5) == j, x, 0.0) for j in range(5)]
    uniform = {tuple((rest[0] + 4 * rest[j] * (1 / 4)).tolist()) for j in range(1, 5)}  # λ = 1/4, p = 1/4 each
    assert {tuple(out.tolist()) for out in outcomes(tg.compressor("mix(k=1)"), x, 4)} == uniform
    pairs = {tuple(((rest[i] + rest[j]) * 3 / 2).tolist()) for i, j in itertools.combinations(range(3), 2)}
    assert {tuple(out.tolist()) for out in outcomes(tg.compressor("comp(k=2, k2=3)"), x, 3)} == pairs


def test_with_few_entries_all_are_sent():
    for spec in ("mix(k=3, k2=2)", "comp(k=4, k2=4)"):
        assert tg.compressor(spec).variance(T1) == 0.0
        assert torch.equal(numbers(tg.compressor(spec).encode(T1, tg.Key(0))), T1)


@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
def test_every_compressor_keeps_to_its_relative_bias_and_spread(compressor):
    """0.5: ‖E C(x) − x‖ <= η ‖x‖ and E‖C(x) − E C(x)‖² <= spread ‖x‖², their squares adding up to `variance`."""
    for d in (1, 3, 12):
        places = torch.arange(d, dtype=torch.float64)
        for x in (torch.ones(d).double(), 0.7**places, torch.where(places == 0, 1.0, 0.0), torch.sin(1 + 5 * places)):
            norm, bias = float(torch.linalg.vector_norm(x)), float(torch.linalg.vector_norm(compressor._mean(x) - x))
            assert bias <= compressor.eta(d) * norm + 1e-7 * norm
            about_mean = compressor.variance(x) - bias**2
            assert -1e-7 * norm**2 <= about_mean <= (compressor.spread(d) + 1e-7) * norm**2
            if compressor.unbiased:
                assert compressor.eta(d) == 0.0
                assert compressor.spread(d) == compressor.omega(d)
            if not compressor.random:
                assert compressor.spread(d) == 0.0
