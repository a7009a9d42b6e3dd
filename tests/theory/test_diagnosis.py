import math

import pytest
import torch
from torch import nn

import telegrad as tg
from command_line import invoke
from telegrad.errors import DataError, InputError
from telegrad.lab.diagnosis_report import diagnosis_json, diagnosis_page
from telegrad.lab.vectors import quantile_vector
from telegrad.theory.diagnosis import diagnose_gradients, level_law
from telegrad.theory.measuring import expected_bits
from telegrad.theory.noise_scale import noise_scale
from telegrad.theory.tails import fit_decay, hill, tail, top_share


@pytest.mark.parametrize("alpha", [0.8, 1.5, 3.0])
def test_hills_estimate_covers_a_pareto_tail(alpha):
    """Exact Pareto magnitudes, n = 100,000: within 4 standard errors, whatever k."""
    v = tg.Key(1).uniform(100_000).add(2**-54).pow(-1 / alpha)
    for k in (100, 1000, 20_000):
        found, error = hill(v, k)
        assert error == pytest.approx(found / math.sqrt(k))
        assert abs(found - alpha) <= 4 * alpha / math.sqrt(k)


def test_hill_of_what_has_no_tail():
    assert hill(torch.ones(100))[0] == math.inf
    assert math.isnan(hill(torch.zeros(100))[0])
    assert math.isnan(hill(torch.tensor([1.0]))[0])


def test_top_shares():
    assert top_share(torch.ones(1000)) == pytest.approx(0.01)
    assert top_share(torch.tensor([3.0, 0, 0, 4.0]), 0.25) == pytest.approx(16 / 25)
    gauss = quantile_vector("gauss", 100_000, tg.Key(0))
    z = 2.5758293  # of a share of 1 % in both tails: 0.01 + 2 z φ(z)
    assert top_share(gauss) == pytest.approx(0.01 + 2 * z * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi), rel=1e-3)
    assert math.isnan(top_share(torch.zeros(3)))


def test_decay_fits_are_exact_on_their_own_laws():
    """B2.4: |v_j| = e^(−rj/2) gives back r, R² = 1, and the ω that (B2.4) states, equal to that of the vector."""
    j = torch.arange(10_000, dtype=torch.float64)
    found = fit_decay(torch.exp(-0.001 * j / 2)[tg.Key(0).permutation(10_000)])
    assert (found.rate, found.rate_r2) == (pytest.approx(0.001), pytest.approx(1.0))
    assert found.omega_by_rate == pytest.approx(math.tanh(2.5) / math.tanh(0.001 * 100 / 4) - 1)
    assert found.omega_by_rate == pytest.approx(found.omega)
    assert found.exponent_r2 < 0.95
    power = fit_decay((j + 1) ** -0.7)
    assert (power.exponent, power.exponent_r2) == (pytest.approx(0.7), pytest.approx(1.0))
    assert power.rate_r2 < 0.9


def test_the_omega_of_the_fit_is_that_of_the_compressor():
    v = quantile_vector("lognormal", 5_000, tg.Key(0))
    exact = tg.compressor("mlmc(stopk(s=0.01))").variance(v) / float(v.double().square().sum())
    assert fit_decay(v).omega == pytest.approx(exact, rel=1e-4)  # norms are rounded there


def test_tails_refuse_what_they_cannot_read():
    with pytest.raises(InputError, match="finite"):
        tail(torch.tensor([1.0, math.nan]))
    with pytest.raises(InputError, match="at least one"):
        tail(torch.zeros(0))


def test_the_noise_scale_of_known_noise():
    """Gradients c + noise of variance σ² a coordinate: scale b·dσ²/‖c‖² = 16 · 400 · .25/1; the 95 % interval covers in
    at least 85 of 100 repetitions (binomial, p < 10⁻⁴ otherwise).
    """
    d, n, covered, middle = 400, 12, 0, []
    for seed in range(100):
        noise = tg.Key(seed).normal(n * d).view(n, d) * 0.5
        found = noise_scale(list(1 / math.sqrt(d) + noise), 16)
        covered += found.low <= 16 * 100 <= found.high
        middle.append(found.variance)
        assert found.coordinate_scale == pytest.approx(0.5 * 4, rel=0.1)
    assert covered >= 85
    assert sum(middle) / 100 == pytest.approx(100, abs=5 * 100 * math.sqrt(2 / (100 * d * (n - 1))))
    assert found.phi(4) == found.examples / 64
    with pytest.raises(InputError, match="at least three"):
        noise_scale([torch.ones(3)] * 2, 4)


def test_the_noise_scale_equals_its_formula():
    rows = [torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0]), torch.tensor([2.0, 3.0])]
    found = noise_scale(rows, 5)
    assert found.variance == pytest.approx((1 + 1 + 1 + 1 + 4) / 2)  # around the mean (2, 1)
    assert found.signal == pytest.approx(5 - 4 / 3)
    assert found.examples == pytest.approx(5 * 4 / (5 - 4 / 3))


@pytest.mark.parametrize("spec", ["mlmc(fixed_point, probabilities=cost)", "mlmc(stopk(s=0.01))", "randk(k=0.1)"])
def test_expected_bits_hold_the_rare_long_messages(spec):
    """Three messages of bit planes of a heavy-tailed vector have half the mean length of 150 (within three errors)."""
    v = tg.Key(0).normal(20_000).pow(5).float()
    compressor = tg.compressor(spec)
    bits = torch.tensor([8.0 * len(tg.pack(compressor.encode(v, tg.Key(0).fold(step=i, rank=0)))) for i in range(150)])
    found = expected_bits(compressor, v, float(bits[:3].mean()))
    assert found >= float(bits[:3].mean())
    assert found == pytest.approx(float(bits.mean()), abs=3 * float(bits.std()) / math.sqrt(150) + 0.02 * found)


def test_level_laws_are_those_of_b15():
    law = level_law("mlmc(stopk(s=1))", torch.tensor([4.0, 2, 1, 0.5]))
    assert law.probabilities == pytest.approx((0.53333, 0.26667, 0.13333, 0.06667), abs=1e-5)
    assert law.mean == pytest.approx(0.53333 + 2 * 0.26667 + 3 * 0.13333 + 4 * 0.06667, abs=1e-4)
    with pytest.raises(DataError, match="no levels"):
        level_law("randk(k=1)", torch.ones(4))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def batches(count, size=8):
    key = tg.Key(5)
    for i in range(count):
        inputs = key.fold(batch=i).normal(6 * size).view(size, 6).float()
        yield inputs, (inputs[:, 0] > 0).long()


def test_diagnose_leaves_the_model_as_it_was_and_says_what_it_saw(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = tg.diagnose(model, batches(5), specs=["randk(k=0.5)", "topk(k=0.5)"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert list(found.layers) == [name for name, _ in model.named_parameters()]
    assert found.whole.entries == sum(p.numel() for p in model.parameters())
    assert found.noise.batches == 5
    assert {one.spec for one in found.measurements} == {"randk(k=0.5)", "topk(k=0.5)"}
    assert "randk(k=0.5) has the least" in found.advice[-1]  # never the biased one
    page = diagnosis_page(found, "a <b> title")
    assert "a &lt;b&gt; title" in page
    assert "3.weight" in page
    assert "<script" not in page
    assert diagnosis_json(found)["noise"]["batches"] == 5


def test_diagnose_with_few_or_uneven_batches_and_bad_ones(model):
    assert tg.diagnose(model, batches(2), specs=["randk(k=0.5)"]).noise is None
    uneven = [*batches(3), next(batches(1, size=3))]
    assert tg.diagnose(model, uneven, specs=["randk(k=0.5)"]).noise.batches == 3
    assert tg.diagnose(model, uneven[::-1], specs=["randk(k=0.5)"]).noise.batches == 3  # the short one first
    with torch.no_grad():
        assert tg.diagnose(model, batches(3), specs=["randk(k=0.5)"]).noise.batches == 3
    with pytest.raises(DataError, match="no batch"):
        tg.diagnose(model, [])
    with pytest.raises(DataError, match="zero"):
        diagnose_gradients([{"x": torch.zeros(3)}], 4)
    with pytest.raises(InputError, match="finite"):
        diagnose_gradients([{"x": torch.tensor([1.0, math.inf])}], 4)


def test_what_is_not_known_is_not_claimed(model):
    """Too few batches for a noise scale, and too few entries for a tail; pages are written all the same."""
    few = tg.diagnose(model, batches(2), specs=["identity"])
    assert any("tell no noise scale: noise is taken to dominate" in line for line in few.advice)
    assert "<img" in diagnosis_page(few, "nothing is lost: no ω to draw")
    line = torch.nn.Linear(1, 1, bias=False)
    data = [(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [i]])) for i in range(3)]
    tiny = tg.diagnose(line, data, loss=lambda m, x, y: (m(x) - y).square().mean(), specs=["qsgd"])
    assert "nothing can be said of its tail" in tiny.advice[0]
    assert not any("nan" in sentence for sentence in tiny.advice)
    assert "<img" in diagnosis_page(tiny, "one entry")


def test_the_command_writes_a_page(tmp_path):
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    arguments = ["diagnose", "--workload", "quadratic(d=64, noise=0.1)", "--after", "3", "--batches", "4"]
    options = ["--spec", "randk(k=0.1)", "--out", str(page), "--json", str(figures)]
    result = invoke(*arguments, *options)
    assert result.exit_code == 0, result.output
    assert "noise scale" in result.stdout
    assert "data:image/png;base64" in page.read_text()
    assert '"layers"' in figures.read_text()
    result = invoke(*arguments, "--batch-size", "5000")
    assert result.exit_code == 2
    assert "the training split has" in result.stderr
