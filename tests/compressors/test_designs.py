"""Systematic importance sampling (A5.6) and importance sampling by binary exponents (A6)."""

import itertools
import math

import pytest
import torch

import telegrad as tg
from cases import T1, FixedKey, numbers

GENERATOR = torch.Generator().manual_seed(56)


class Comb(FixedKey):
    """A key whose permutation is chosen, too."""

    def __init__(self, default, order, by_role=None):
        super().__init__(default, by_role)
        self.order = order

    def fold(self, **what):
        return Comb(super().fold(**what).value, self.order, self.by_role)

    def permutation(self, n):
        return torch.tensor(self.order)


def test_systematic_sampling_of_t1_over_all_orders_and_ticks():
    """A5.6, A5.1: T1, k = 2: π = (1, 4/7, 2/7, 1/7), MSE 7; exactly two entries always; each order has exact marginals.

    The start of the comb runs over the middles of 7 intervals: π are sevenths, so this integrates exactly.
    """
    c = tg.compressor("importance(k=2, design=systematic)")
    errors = []
    for order in itertools.permutations(range(4)):
        drawn = torch.stack([numbers(c.encode(T1, Comb((i + 0.5) / 7, order))) for i in range(7)])
        assert bool((drawn.count_nonzero(dim=1) == 2).all())
        assert torch.allclose(drawn.mean(0), T1, rtol=1e-12)
        assert (drawn != 0).double().mean(0).tolist() == pytest.approx([1, 4 / 7, 2 / 7, 1 / 7])
        errors.append(float((drawn - T1).square().sum(1).mean()))
    assert errors == pytest.approx([7.0] * 24)
    assert c.variance(T1) == pytest.approx(7.0, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("d", "k"), [(7, 1), (50, 10), (1000, 333), (20, 19)])
def test_the_size_is_fixed_and_the_marginals_hold(d, k, dtype):
    """A5.6: size ∈ {⌊k⌋, ⌈k⌉}; one less by the threshold's rounding to float32. N = 2,000, z = 5 for each entry, and
    three draws more, since a rare entry's count is not normal.
    """
    x = (torch.randn(d, generator=torch.Generator().manual_seed(d), dtype=torch.float64) ** 3).to(dtype)
    c, draws = tg.compressor(f"importance(k={k}, design=systematic)"), 2000
    sent = torch.stack([numbers(c.encode(x, tg.Key(seed))) for seed in range(draws)])
    sizes = set(sent.count_nonzero(dim=1).tolist())
    assert sizes <= ({k} if dtype == torch.float64 else {k - 1, k}) | ({k, k - 1} if d == 1000 else set())
    pi = (x.double().abs() / c._threshold(x)).clamp(max=1.0)
    frequency = (sent != 0).double().mean(0)
    assert bool(((frequency - pi).abs() <= 5 * (pi * (1 - pi) / draws).sqrt() + 3 / draws).all())


def test_the_order_of_the_comb_is_random():
    """In a fixed order neighbours would exclude each other: of four equal entries all six pairs are drawn."""
    c, pairs = tg.compressor("importance(k=2, design=systematic)"), {}
    for seed in range(3000):
        pair = tuple(numbers(c.encode(torch.ones(4), tg.Key(seed))).nonzero().flatten().tolist())
        pairs[pair] = pairs.get(pair, 0) + 1
    assert len(pairs) == 6
    assert sum((count - 500) ** 2 / 500 for count in pairs.values()) < 44  # the 1 − 2e-8 quantile at 5 degrees


# A6


def probabilities(spec, x):
    return tg.compressor(spec)._probabilities(x.double())


def test_buckets_by_hand():
    """(4, 2, 1, .5) lies in four buckets, so A6 is A5: π = (1, 4/7, 2/7, 1/7), MSE 7. (3, 2, 1, 0), k = 2: 3, 2 share
    √6.5, so λ = 2/(2√6.5 + 1), and MSE = 13 (1/π − 1) + 1/π′ − 1.
    """
    assert probabilities("bucketed_importance(k=2)", T1).tolist() == pytest.approx([1, 4 / 7, 2 / 7, 1 / 7])
    assert tg.compressor("bucketed_importance(k=2)").variance(T1) == pytest.approx(7.0, rel=1e-12)
    x = torch.tensor([3.0, -2.0, 1.0, 0.0], dtype=torch.float64)
    factor = 2 / (2 * math.sqrt(6.5) + 1)
    pi = [factor * math.sqrt(6.5)] * 2 + [factor, 0.0]
    assert probabilities("bucketed_importance(k=2)", x).tolist() == pytest.approx(pi)
    expected = 13 * (1 / pi[0] - 1) + 1 / pi[2] - 1
    assert tg.compressor("bucketed_importance(k=2)").variance(x) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("values", ["fp32", "bf16", "log"])
def test_unbiased_by_enumeration(values):
    """A6's test, d = 4: over all 16 subsets with their probabilities, and two roundings of each entry, the mean is x
    and the error is `variance`.
    """
    x = torch.tensor([3.3, -2.1, 0.7, 0.0], dtype=torch.float64)
    c = tg.compressor(f"bucketed_importance(k=2, values={values})")
    pi = probabilities("bucketed_importance(k=2)", x)
    assert float(pi.sum()) == pytest.approx(2)
    kept = pi > 0
    up, down = (
        numbers(c.encode(x, FixedKey(0.0, {"values": u}))) for u in (0.0, 1 - 2.0**-53)
    )  # all kept: every uniform of the subset is zero
    share = torch.where(up == down, 0.0, (x / pi - down) / (up - down))[kept]
    assert bool(((share >= 0) & (share <= 1)).all())
    up, down, y, p = up[kept], down[kept], x[kept], pi[kept]
    assert torch.allclose(p * (share * up + (1 - share) * down), y, rtol=1e-12)
    second = p * (share * (up - y).square() + (1 - share) * (down - y).square()) + (1 - p) * y.square()
    assert c.variance(x) == pytest.approx(float(second.sum()), rel=1e-9)


@pytest.mark.parametrize("k", [1, 5, 40, 150])
@pytest.mark.parametrize("power", [0.1, 1, 3, 9])
def test_never_better_than_the_optimum_and_its_second_moment_at_most_nine_eighths(k, power):
    """A6.1, I: second moment Σ v²/π in [1, 1.125] times the exact optimum's; Σ π = k."""
    x = torch.randn(200, generator=GENERATOR, dtype=torch.float64)
    x = x.sign() * x.abs() ** power
    mine, best = (tg.compressor(f"{name}(k={k})").variance(x) for name in ("bucketed_importance", "importance"))
    energy = float(x @ x)
    assert 1 - 1e-9 <= (mine + energy) / (best + energy) <= 1.125
    assert mine >= best * (1 - 1e-9)
    pi = probabilities(f"bucketed_importance(k={k})", x)
    assert float(pi.sum()) == pytest.approx(k)
    assert float(pi.max()) <= 1.0
    exponent = torch.frexp(x).exponent
    for e in exponent.unique():
        assert len(pi[exponent == e].unique()) == 1


def test_equal_magnitudes_attain_omega_and_enough_room_leaves_no_randomness():
    x = torch.full((12,), -0.3, dtype=torch.float64)
    c = tg.compressor("bucketed_importance(k=3)")
    assert c.variance(x) == pytest.approx(c.omega(12) * float(x @ x), rel=1e-12)
    assert c.omega(12) == 3.0
    sparse = torch.tensor([0.0, 1.0, 0.0, -2.0, 0.5, 0.0])
    assert c.variance(sparse) == 0.0
    assert torch.equal(c.encode(sparse, tg.Key(0)).decode(), sparse)


def test_entries_of_very_different_size_keep_a_positive_probability():
    x = torch.tensor([1.0, 2.0**-700, -1.5, 2.0**-1060, 1.1], dtype=torch.float64)
    pi = probabilities("bucketed_importance(k=2)", x)
    assert bool((pi[[0, 1, 2, 4]] > 0).all())
    assert math.isfinite(tg.compressor("bucketed_importance(k=2)").variance(x))


def test_zeros_among_tiny_entries_stay_zero():
    x = torch.tensor([3.0, -2.0, 1.0, 0.0], dtype=torch.float64) * 2.0**-20
    pi = probabilities("bucketed_importance(k=2)", x)
    assert torch.equal(pi, probabilities("bucketed_importance(k=2)", x * 2.0**20))
    assert pi[3] == 0
