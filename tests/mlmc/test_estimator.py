"""The heart: for every ladder, law and coding, Σ p_l · estimate_l = v, and what is sent for a level is unbiased too."""

import dataclasses
import math

import pytest
import torch

import telegrad as tg
from cases import EVERY_LAW, MLMC, T1, FixedKey, by_dtype, by_spec, extreme_tensors, numbers, ordinary_tensors, variants
from telegrad.kernels.random_numbers.weighted_draws import draw
from telegrad.mlmc import RefinementLadder
from telegrad.mlmc import ladder as contract
from telegrad.mlmc.probabilities import level_probabilities
from telegrad.spec import build

FLOAT64 = {**ordinary_tensors(torch.float64), **extreme_tensors(torch.float64)}
NON_ZERO = {name: x.reshape(-1) for name, x in FLOAT64.items() if bool(x.any()) and name != "huge"}
# Over the p of one of many levels the largest float64 numbers are no float64 numbers.
NON_ZERO["spread"] = torch.where(NON_ZERO["spread"].abs() > 1e300, NON_ZERO["spread"] * 2.0**-12, NON_ZERO["spread"])
NON_ZERO["600 orders of magnitude"] = torch.logspace(300, -300, 31, dtype=torch.float64)
LAST_BELOW_ONE = math.nextafter(1.0, 0.0)

# One level a message, drawn by a single uniform; other samplings are held to their moments in test_sampling.py.
SINGLE = [compressor for compressor in MLMC if compressor.sampling == "independent"]


def rounds_rotated(ladder):
    """Whether the last level is rounded in another basis, as test_refinement.py enumerates it."""
    return isinstance(ladder, RefinementLadder)


def enumerated_mean(compressor, v):
    total, mass = torch.zeros(len(v), dtype=torch.float64), 0.0
    for probability, estimate in compressor.enumerate_levels(v):
        assert probability > 0.0
        total += probability * estimate
        mass += probability
    assert mass == pytest.approx(1.0, abs=1e-12)
    return total


def assert_equal_in_norm(actual, expected, tolerance=1e-12):
    """To 1e-12 of the norm, or to what float64 can tell apart at its lower end."""
    scale = float(expected.abs().max())
    difference = float(torch.linalg.vector_norm(actual / scale - expected / scale))
    norm = float(torch.linalg.vector_norm(expected / scale))
    assert difference <= tolerance * norm + math.sqrt(len(expected)) * (5e-324 / scale)


@pytest.mark.parametrize("x", NON_ZERO.values(), ids=NON_ZERO)
@pytest.mark.parametrize("compressor", **by_spec(EVERY_LAW + MLMC))
def test_the_levels_average_to_the_vector(compressor, x):
    """B1.3, by enumeration."""
    assert_equal_in_norm(enumerated_mean(compressor, x), x)


@pytest.mark.parametrize("dtype", **by_dtype())
@pytest.mark.parametrize("compressor", **by_spec(SINGLE))
def test_the_levels_average_to_the_vector_in_every_dtype(compressor, dtype):
    for x in (*ordinary_tensors(dtype).values(), *extreme_tensors(dtype).values()):
        # The largest float64 numbers over p are not float64 numbers: `encode` refuses them when they are drawn.
        if bool(x.any()) and float(x.abs().max()) < 1e308:
            assert_equal_in_norm(enumerated_mean(compressor, x.reshape(-1)), x.double().reshape(-1))


def branches(compressor, x):
    """For every level that matters: p_l, the exact estimate, and what `encode` sends when all its uniforms are u."""
    exact = list(compressor.enumerate_levels(x))
    cumulative = 0.0
    for probability, estimate in exact:
        middle = cumulative + probability / 2
        cumulative += probability
        if probability > 1e-12:  # a level below that can neither be reached by a 53-bit uniform nor be missed
            yield (
                probability,
                estimate,
                lambda u, middle=middle: numbers(compressor.encode(x, FixedKey(u, {"level": middle}))),
            )


EXACT_CASES = {"T1": T1, "seven": torch.tensor([3.3, -0.7, 1.9, 0.0, -1.9, 0.011, 8.1], dtype=torch.float64)}


@pytest.mark.parametrize("x", EXACT_CASES.values(), ids=EXACT_CASES)
@pytest.mark.parametrize("compressor", **by_spec([c for c in SINGLE if not rounds_rotated(c.ladder)]))
def test_what_is_sent_for_a_level_is_unbiased_and_its_variance_exact(compressor, x):
    """An entry of a level takes one value for uniforms below a share f of [0, 1), and another one above.

    With f = (exact − second) / (first − second) its mean is exact, and E‖C(x) − x‖² follows without sampling.
    """
    squared_error, grid = 0.0, 16
    for probability, exact, send in branches(compressor, x):
        first, second = send(0.0), send(LAST_BELOW_ONE)
        tolerance = 1e-12 * float(exact.abs().max())
        two_valued = (first - second).abs() > tolerance
        assert torch.allclose(first[~two_valued], exact[~two_valued], rtol=0.0, atol=tolerance)
        share = torch.where(two_valued, (exact - second) / (first - second), 0.0)
        assert bool(((share >= 0.0) & (share <= 1.0)).all())
        near_edges = {float(f) * (1 + side) for f in share[two_valued] for side in (-1e-9, 1e-9)}
        inside = [(i + 0.5) / grid for i in range(grid)] if bool(two_valued.any()) else []
        for u in sorted(near_edges | set(inside)):
            decided = two_valued & ((share - u).abs() > 1e-10)
            expected = torch.where(u < share, first, second)
            assert torch.equal(send(u)[decided], expected[decided])
        error = share * (first - x).square() + (1 - share) * (second - x).square()
        squared_error += probability * float(error.sum())
    assert compressor.variance(x) == pytest.approx(squared_error, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "compressor", [c for c in EVERY_LAW if c.ladder.values == "fp32" and not rounds_rotated(c.ladder)], ids=str
)
@pytest.mark.parametrize("name", ["normal", "heavy", "tied", "constant", "with zeros", "half steps"])
def test_variance_is_the_mean_squared_error_over_the_levels(compressor, name):
    """B1.4 against enumeration, where values are sent exactly."""
    x = NON_ZERO[name]
    by_enumeration = sum(p * float((estimate - x).square().sum()) for p, estimate in compressor.enumerate_levels(x))
    assert compressor.variance(x) == pytest.approx(by_enumeration, rel=1e-9, abs=1e-12 * float(x.square().sum()))


@pytest.mark.parametrize("ladder", [x for x in variants("ladder") if x.values in ("fp32", "sign")], ids=str)
@pytest.mark.parametrize("name", ["normal", "heavy", "tied", "with zeros"])
def test_adaptive_probabilities_are_the_best(ladder, name):
    """B1.5: p ∝ Δ, and any other law is no better (B13.4: the ratio of second moments is 1 + χ²)."""
    x = NON_ZERO[name]
    levels = ladder.levels(x)
    p, norms = level_probabilities(levels, "adaptive"), levels.norms()
    assert torch.allclose(p * norms.sum(), norms, rtol=1e-12, atol=0.0)
    best = tg.compressor(f"mlmc({ladder})").variance(x)
    for law in ("fixed", "cost"):
        assert best <= tg.compressor(f"mlmc({ladder}, probabilities={law})").variance(x) * (1 + 1e-12)


@pytest.mark.parametrize("ladder", variants("ladder"), ids=str)
def test_the_probabilities_by_cost_are_proportional_to_norm_over_root_of_cost(ladder):
    """B9.1: p ∝ Δ / √K, K positive."""
    levels = ladder.levels(NON_ZERO["normal"])
    costs, p = levels.costs(), level_probabilities(levels, "cost")
    assert bool((costs > 0).all())
    weighted = p * costs.sqrt()
    assert torch.allclose(weighted / weighted.sum(), levels.norms() / levels.norms().sum(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("ladder", variants("ladder"), ids=str)
def test_fixed_probabilities_do_not_look_at_the_vector(ladder):
    """B6, Algorithm 2; positive on every level that a vector can have (B1.3)."""
    a, b = NON_ZERO["normal"], NON_ZERO["heavy"]
    assert torch.equal(ladder.levels(a).fixed_probabilities(), ladder.levels(b).fixed_probabilities())
    p = ladder.levels(a).fixed_probabilities()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-12)
    assert bool((p[ladder.levels(a).norms() > 0] > 0).all())


def test_a_level_is_drawn_with_its_probability_and_never_one_of_zero():
    """Inversion, on a grid of uniforms: level l takes a share p_l of them, to one grid step on either side."""
    p = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0], dtype=torch.float64)
    grid = 10_000
    drawn = torch.tensor([draw(p.numpy(), i / grid) for i in range(grid)])
    shares = torch.bincount(drawn, minlength=7)[1:] / grid
    assert torch.allclose(shares.double(), p, rtol=0.0, atol=1.5 / grid)
    assert draw(p.numpy(), 0.0) == 2
    assert draw(p.numpy(), LAST_BELOW_ONE) == 5


def test_levels_are_drawn_as_often_as_their_probability_says():
    """Chi-square over the four levels of T1 with s = 1: 4,000 messages, p = (8, 4, 2, 1)/15 (B2.2).

    Null: the levels follow p. 27.9 is the 1 − 4e-6 quantile of chi-square with 3 degrees of freedom; the seed is fixed.
    """
    compressor, draws = tg.compressor("mlmc(stopk(s=1))"), 4_000
    key = tg.Key(seed=3)
    drawn = torch.tensor([compressor.encode(T1, key.fold(draw=i)).level for i in range(draws)])
    expected = draws * torch.tensor([8, 4, 2, 1], dtype=torch.float64) / 15
    observed = torch.bincount(drawn, minlength=5)[1:]
    assert float(((observed - expected).square() / expected).sum()) < 27.9


def test_the_level_is_in_the_account_and_in_the_message():
    code = tg.compressor("mlmc(fixed_point)").encode(T1, tg.Key(1))
    assert 1 <= code.level <= 63
    assert code.fields["level"] == 8
    assert tg.unpack(tg.pack(code)).level == code.level


@pytest.mark.parametrize("compressor", **by_spec(SINGLE))
def test_scaling_the_vector_by_a_power_of_two_scales_the_message(compressor):
    """A25.2: C(2^k v) = 2^k C(v), key by key, for all ladders."""
    x = NON_ZERO["normal"]
    for seed in range(5):
        small, large = (numbers(compressor.encode(v, tg.Key(seed))) for v in (x, x * 2.0**60))
        assert torch.equal(small * 2.0**60, large)


def test_a_new_ladder_needs_residuals_norms_and_costs_only():
    """The contract as its documentation has it: two levels, Top-1 and the rest (B1.8, T1: ω = 0.8626025)."""

    class TwoLevels(contract.Levels):
        def __init__(self, v):
            self.blocks, self.v = build("stopk(s=1)", "ladder").levels(v), v

        def norms(self):
            first = self.blocks.norms()[0]
            return torch.stack([first, (self.v.square().sum() - first**2).sqrt()])

        def costs(self):
            return torch.tensor([160.0, 800.0], dtype=torch.float64)

        def fixed_probabilities(self):
            return torch.tensor([0.5, 0.5], dtype=torch.float64)

        def base(self):
            return ()

        def residual(self, level):
            if level == 1:
                return self.blocks.residual(1)
            return tuple(term for block in range(2, len(self.v) + 1) for term in self.blocks.residual(block))

    class TwoLevelLadder(contract.Ladder):
        values = "fp32"

        def omega(self, d, adaptive):
            return 1.0

        def levels(self, v):
            return TwoLevels(v)

    compressor = dataclasses.replace(tg.compressor("mlmc(stopk(s=1))"), ladder=TwoLevelLadder())
    assert torch.allclose(enumerated_mean(compressor, T1), T1, rtol=1e-15)
    assert compressor.variance(T1) / 21.25 == pytest.approx(0.8626025, abs=5e-8)
    code = compressor.encode(T1, FixedKey(0.0, {"level": 0.99}))
    assert [term.positions.n for term in code.terms] == [3]
    assert torch.equal(tg.unpack(tg.pack(code)).decode(), code.decode())
