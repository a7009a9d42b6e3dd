"""Several levels a message: bases, draws with and without replacement, systematic and coupled (B11)."""

import math

import pytest
import torch

import telegrad as tg
from telegrad.mlmc.sampling import (
    drawn_levels,
    draws_needed,
    inclusions,
    joint_moment,
    second_moments,
    spread_uniforms,
)

T1 = torch.tensor([4.0, 2, 1, 0.5], dtype=torch.float64)
WEIGHTS = torch.tensor([4.0, 0.0, 2.0, 1.0, 0.5, 0.5], dtype=torch.float64)
ONES = torch.ones(6, dtype=torch.float64)
DESIGNS = [("independent", 3), ("poisson", 2.5), ("systematic", 2.5), ("systematic", 0.4), ("coupled", 2.5)]
SKEWED = tg.Key(3).normal(40) ** 3


def drawn(pi, sampling, draws, seed):
    uniforms = tg.Key(seed).uniform(draws_needed(sampling, draws, len(pi))).numpy()
    found = drawn_levels(pi.numpy(), sampling, uniforms)
    return torch.tensor([found.get(level, 0) for level in range(1, len(pi) + 1)])


@pytest.mark.parametrize(("sampling", "draws"), DESIGNS)
def test_inclusions_spend_the_draws_on_non_zero_levels(sampling, draws):
    pi = inclusions(WEIGHTS, sampling, draws, ONES)
    assert float(pi.sum()) == pytest.approx(draws, rel=1e-12)
    assert bool((pi[WEIGHTS > 0] > 0).all())
    if sampling != "independent":
        assert float(pi.max()) <= 1.0


def test_more_draws_than_levels_send_everything():
    for sampling in ("poisson", "systematic"):
        assert torch.equal(inclusions(WEIGHTS, sampling, 9, ONES), (WEIGHTS > 0).double())


@pytest.mark.parametrize(("sampling", "draws"), DESIGNS)
def test_counts_have_the_moments_the_variance_is_built_on(sampling, draws):
    """N = 8,000 draws of all levels at once; every first and second moment within z = 5 of its standard error."""
    n = 8_000
    pi = inclusions(WEIGHTS, sampling, draws, ONES)
    counts = torch.stack([drawn(pi, sampling, draws, i) for i in range(n)]).double()

    def close(samples, expected):
        assert abs(float(samples.mean()) - expected) <= 5 * float(samples.std()) / math.sqrt(n) + 1e-12

    moments = second_moments(pi, sampling, draws)
    present = pi.nonzero().flatten().tolist()
    for level in present:
        weighted = counts[:, level] / pi[level]
        close(weighted, 1.0)
        close(weighted.square(), float(moments[level]))
        for other in present:
            if other != level:
                pair = weighted * counts[:, other] / pi[other]
                close(pair, joint_moment(pi, sampling, draws, level, other))
    assert sampling == "coupled" or not counts[:, 1].any()


def test_a_systematic_draw_has_fixed_size():
    pi = inclusions(WEIGHTS, "systematic", 2.5, ONES)
    sizes = {int(drawn(pi, "systematic", 2.5, i).sum()) for i in range(200)}
    assert sizes == {2, 3}


def test_coupled_draws_are_all_levels_up_to_one():
    pi = inclusions(WEIGHTS, "coupled", 2.5, ONES)
    for i in range(200):
        places = drawn(pi, "coupled", 2.5, i).nonzero().flatten().tolist()
        assert places == list(range(len(places)))
        assert places


def test_coupled_on_t1():
    """B11.3: F = (1, .5, .25, .125) is the optimum at 1.875 entries, MSE 8.75."""
    compressor = tg.compressor("mlmc(stopk(s=1), sampling=coupled, draws=1.875)")
    pi = inclusions(T1, "coupled", 1.875, torch.ones(4))
    torch.testing.assert_close(pi, torch.tensor([1, 0.5, 0.25, 0.125], dtype=torch.float64))
    assert compressor.variance(T1) == pytest.approx(8.75, rel=1e-12)


def test_pools_keep_reach_from_rising_and_beat_any_scaled_neighbour():
    """B11.3 pools a level whose energy rises; a rising F is no F, and moving mass between pools only costs."""
    squares = torch.tensor([1.0, 0.1, 2.0, 0.3, 0.2], dtype=torch.float64)
    pi = inclusions(squares.sqrt(), "coupled", 2.0, torch.ones(5))
    assert bool((pi[1:] <= pi[:-1]).all())
    best = float((squares / pi).sum())
    for i in range(1, 5):
        for j in range(1, 5):
            moved = pi.clone()
            moved[i] += 1e-4
            moved[j] -= 1e-4
            if i != j and bool((moved[1:] <= moved[:-1]).all()):
                assert float((squares / moved).sum()) >= best - 1e-9


@pytest.mark.parametrize("k0", [1, 2, 3])
def test_a_base_on_t1(k0):
    """B11.1: MSE = (Σ_{l>k0} Δ_l)² − ‖v − g⁰‖²."""
    rest = T1[k0:]
    expected = float(rest.sum() ** 2 - rest.square().sum())
    assert tg.compressor(f"mlmc(stopk(s=1), base={k0})").variance(T1) == pytest.approx(expected, abs=1e-12)


def test_without_replacement_at_s_1_is_optimal_importance_sampling():
    """B11.2, A5.3: π = min(1, λ Δ) on single entries is Wangni's design: T1, k = 2 has MSE 7."""
    for sampling in ("poisson", "systematic"):
        compressor = tg.compressor(f"mlmc(stopk(s=1), sampling={sampling}, draws=2)")
        assert compressor.variance(T1) == pytest.approx(7.0, rel=1e-12)
        assert compressor.variance(SKEWED) == pytest.approx(tg.compressor("importance(k=2)").variance(SKEWED), rel=1e-9)


def test_independent_draws_average():
    one, many = (tg.compressor(f"mlmc(fixed_point, draws={n})").variance(SKEWED) for n in (1, 4))
    assert many == pytest.approx(one / 4, rel=1e-12)


@pytest.mark.parametrize(
    "spec",
    [
        "mlmc(stopk(s=4), base=2)",
        "mlmc(stopk(s=4), draws=3)",
        "mlmc(stopk(s=4, values=sign), base=1, draws=2.5, sampling=systematic)",
        "mlmc(stopk(s=4, values=log), draws=3)",
        "mlmc(stopk(s=3), draws=4, sampling=coupled)",
        "mlmc(fixed_point, base=1, draws=2.5, sampling=poisson)",
        "mlmc(fixed_point, draws=2.5, sampling=systematic)",
        "mlmc(fixed_point, draws=3, sampling=coupled)",
        "mlmc(rtn, base=3, draws=1.5, sampling=coupled)",
        "mlmc(floating_point, base=2, draws=2)",
        "mlmc(stopk(s=4), base=10)",
    ],
)
def test_several_levels_are_unbiased_with_the_predicted_variance(spec):
    """Null: E C(x) = x and E‖C(x) − x‖² = V = variance(x), N = 1,500 messages.

    The mean's squared error is V/N in expectation, 3 V/N is allowed; the mean squared error is within z = 5 of V.
    """
    n, compressor = 1500, tg.compressor(spec)
    identity = sum(p * estimate for p, estimate in compressor.enumerate_levels(SKEWED))
    assert float((identity - SKEWED).norm()) <= 1e-12 * float(SKEWED.norm())
    estimates = torch.stack([compressor.encode(SKEWED, tg.Key(i)).decode() for i in range(n)])
    assert float((estimates.mean(0) - SKEWED).square().sum()) <= 3 * compressor.variance(SKEWED) / n + 1e-24
    errors = (estimates - SKEWED).square().sum(1)
    allowed = 5 * float(errors.std()) / math.sqrt(n) + 1e-12
    assert abs(float(errors.mean()) - compressor.variance(SKEWED)) <= allowed


def test_blocks_drawn_together_are_sent_as_one_index_set():
    code = tg.compressor("mlmc(stopk(s=4), base=3)").encode(SKEWED, tg.Key(0))
    assert len(code.terms) == 1
    assert code.terms[0].positions.n == 16


@pytest.mark.parametrize(
    ("spec", "culprit"),
    [
        ("mlmc(stopk(s=1), base=-1)", "base=-1"),
        ("mlmc(stopk(s=1), draws=1.5)", "draws=1.5"),
        ("mlmc(stopk(s=1), draws=0)", "draws=0"),
        ("mlmc(stopk(s=1), draws=1, sampling=coupled)", "above 1"),
        ("mlmc(stopk(s=1), sampling=poison)", "poisson"),
    ],
)
def test_designs_that_cannot_be_are_refused(spec, culprit):
    with pytest.raises(tg.SpecError, match=culprit):
        tg.compressor(spec)


@pytest.mark.parametrize("sampling", ["independent", "poisson", "systematic", "coupled"])
def test_coordinated_uniforms_are_spread_evenly_and_uniform_for_each_worker(sampling):
    """Over 7 workers one lies in every seventh of [0, 1); one worker's alone is uniform (KS, N = 2,000, level 1e-3)."""
    n, workers, needed = 2000, 7, draws_needed(sampling, 3, 5)
    alone = torch.empty(n)
    for i in range(n):
        first = torch.tensor([spread_uniforms(needed, tg.Key(i), rank, workers)[0] for rank in range(workers)])
        assert sorted((first * workers).to(torch.int64).tolist()) == list(range(workers))
        alone[i] = first[2]
    ordered = alone.double().sort().values
    gap = (ordered - torch.arange(1, n + 1) / n).abs().max()
    assert float(gap) < 1.95 / math.sqrt(n)


@pytest.mark.parametrize(
    ("workers", "independent", "systematic"), [(4, 4.71, 3.98), (16, 1.17, 0.41), (64, 0.29, 0.026)]
)
def test_coordinated_levels_reproduce_b12_1(workers, independent, systematic):
    """Error of the mean of M workers with one Gaussian vector, d = 256, s = 8, beside the reference, ± 20 %."""
    x = tg.Key(5).normal(256)
    energy = float(x.square().sum())
    for spec, expected in (
        ("mlmc(stopk(s=8))", independent),
        (f"mlmc(stopk(s=8), workers={workers})", systematic),
    ):
        compressor, errors = tg.compressor(spec), []
        for trial in range(max(10, 600 // workers)):
            mean = torch.zeros(256, dtype=torch.float64)
            for rank in range(workers):
                compressor.encode(x, tg.Key(trial).fold(rank=rank)).add_to(mean, 1 / workers)
            errors.append(float((mean - x).square().sum()) / energy)
        assert math.fsum(errors) / len(errors) == pytest.approx(expected, rel=0.2)


def test_a_rank_beyond_the_workers_is_refused():
    with pytest.raises(tg.InputError, match="rank 4 is none of 0 … 3"):
        tg.compressor("mlmc(stopk(s=1), workers=4)").encode(T1, tg.Key(0).fold(rank=4))


def tried(d):
    """Vectors that constants are nearly attained at: equal magnitudes, half the energy in few entries, decays."""
    places = torch.arange(d, dtype=torch.float64)
    kinds = [torch.ones(d, dtype=torch.float64), 0.9**places, 0.5**places, 1 / (1 + places)]
    for k in (1, 2, 3, d // 2):
        head = torch.full((d,), (d - k) ** -0.5, dtype=torch.float64)
        head[:k] = k**-0.5
        kinds.append(head)
    return kinds


@pytest.mark.parametrize(
    ("spec", "d", "omega"),
    [
        ("mlmc(two_level(topk(k=2)))", 16, 1.0),
        ("mlmc(two_level(topk(k=2)), probabilities=fixed)", 16, 1.0),
        ("mlmc(two_level(stopk(s=2)))", 16, 1.0),
        ("mlmc(two_level(topk(k=12)))", 16, 0.75**0.5),
        ("mlmc(stopk(s=2), base=1)", 16, 5.25),
        ("mlmc(stopk(s=2), base=1, probabilities=fixed)", 16, 5.25),
        ("mlmc(stopk(s=2), base=3, draws=2)", 16, 1.25),
        ("mlmc(stopk(s=2), sampling=systematic, draws=2)", 16, 3.0),
        ("mlmc(stopk(s=2), sampling=poisson, draws=2)", 16, 3.0),
        ("mlmc(stopk(s=2), sampling=systematic, draws=0.5)", 16, 15.0),
        ("mlmc(stopk(s=2), sampling=systematic, draws=3, base=2)", 16, 0.75),
        ("mlmc(stopk(s=2), sampling=poisson, draws=8)", 16, 0.0),
    ],
)
def test_constants_are_attained(spec, d, omega):
    """To 2^-40, for the rounding of values; the exact variance (B1.4, A5.3) of no vector exceeds them."""
    compressor = tg.compressor(spec)
    assert compressor.omega(d) == pytest.approx(omega, rel=1e-9, abs=1e-9)
    found = max(compressor.variance(x) / float(x.square().sum()) for x in tried(d))
    assert found <= omega * (1 + 2.0**-40) + 2.0**-40
    if "k=12" not in spec:
        assert found == pytest.approx(omega, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("sampling", ["independent", "poisson", "systematic"])
@pytest.mark.parametrize("law", ["gauss", "heavy", "equal", "few sizes"])
def test_constants_of_long_vectors_hold_with_norms_from_a_histogram(law, sampling):
    z = tg.Key(3).normal(6000)
    x = {"gauss": z, "heavy": z**5, "equal": z.sign(), "few sizes": z.round()}[law].float()
    for base, draws in ((0, 1), (1, 2), (2, 5), (0, 19)):
        compressor = tg.compressor(f"mlmc(stopk(s=300), base={base}, draws={draws}, sampling={sampling})")
        assert compressor.variance(x) <= compressor.omega(6000) * float(x.double().square().sum())
