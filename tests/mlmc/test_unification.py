"""Well-known compressors are instances of the multilevel estimator: the same law, by enumeration (B2.2, B11, B12)."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch

import telegrad as tg
from cases import T1, FixedKey, numbers
from telegrad.context import LastEstimate
from telegrad.mlmc import MLMC, Ladder, Levels
from telegrad.wire.code import Term
from telegrad.wire.positions import All, IndexSet
from telegrad.wire.values import Floats

X = torch.tensor([4.0, -3.3, 2.6, 1.0, -0.45, 0.0, 0.013], dtype=torch.float64)
ALWAYS, NEVER = 0.0, math.nextafter(1.0, 0.0)


def marginals(compressor, v):
    """For each entry its law: a dict from values to probabilities."""
    laws = [{} for _ in v]
    for p, estimate in compressor.enumerate_levels(v):
        for law, value in zip(laws, estimate.tolist(), strict=True):
            near = next((known for known in law if abs(known - value) <= 1e-12 * abs(value)), value)
            law[near] = law.get(near, 0.0) + p
    return laws


def assert_two_valued_as(laws, spec, v):
    """Each entry takes the two values that the named compressor gives it, and has the mean v: the same law."""
    high, low = (numbers(tg.compressor(spec).encode(v, FixedKey(u))) for u in (ALWAYS, NEVER))
    for law, a, b, mean in zip(laws, high.tolist(), low.tolist(), v.tolist(), strict=True):
        scale = 1e-12 * float(v.abs().max())
        likely = {value: p for value, p in law.items() if p > 1e-12}
        assert all(min(abs(value - a), abs(value - b)) <= scale for value in likely)
        assert sum(value * p for value, p in law.items()) == pytest.approx(mean, abs=scale)
        share = (mean - b) / (a - b) if abs(a - b) > scale else 1.0
        up = sum(p for value, p in likely.items() if abs(value - a) <= scale)
        assert up == pytest.approx(share, abs=1e-9)


@dataclass(frozen=True)
class GridBase(Ladder):
    """g⁰ = step · ⌊|v| / step⌋ · sign(v), and the bit planes of the fractions relative to the step (B11.5)."""

    step: float
    values = "fp32"

    def omega(self, d, adaptive):
        return math.inf

    def levels(self, v):
        return _GridAndPlanes(v, self.step)


class _GridAndPlanes(Levels):
    def __init__(self, v, step):
        self.v, self.step = v, step
        self.low = (v.abs() / step).floor() * step
        # Planes 1 … 62 of the fraction, and the rest as the 63rd.
        self.planes, rest = [], (v.abs() - self.low) / step
        for level in range(1, 63):
            self.planes.append((rest >= 2.0**-level).double())
            rest = rest - self.planes[-1] * 2.0**-level
        self.planes.append(rest * 2.0**63)

    def _plane(self, level):
        return self.planes[level - 1] * self.step * 2.0**-level * self.v.sign()

    def norms(self):
        return torch.stack([self._plane(level).norm() for level in range(1, 64)])

    def costs(self):
        return torch.ones(63, dtype=torch.float64)

    def fixed_probabilities(self):
        p = 2.0 ** -torch.arange(1, 64, dtype=torch.float64)
        return p / p.sum()

    def base(self):
        return (Term(All(len(self.v)), Floats(self.low * self.v.sign())),)

    def residual(self, level):
        which = torch.arange(len(self.v))
        return (Term(IndexSet(len(self.v), which), Floats(self._plane(level))),)


@pytest.mark.parametrize("levels", [1, 3, 7, 20])
def test_qsgd_of_any_step_is_a_grid_base_with_planes(levels):
    """B11.5: P(up) = Σ b_l 2^−l, the fraction."""
    step = float(torch.linalg.vector_norm(X)) / levels
    assert_two_valued_as(marginals(MLMC(GridBase(step), "fixed"), X), f"qsgd(levels={levels})", X)


@pytest.mark.parametrize("levels", [1, 4])
def test_dithering_with_the_largest_entry_is_a_grid_base_with_planes(levels):
    """B11.5; one level is TernGrad."""
    step = float(X.abs().max()) / levels
    spec = "terngrad" if levels == 1 else f"dithering(norm=inf, levels={levels})"
    assert_two_valued_as(marginals(MLMC(GridBase(step), "fixed"), X), spec, X)


def test_terngrad_is_the_planes_alone():
    """B3.5."""
    assert_two_valued_as(marginals(tg.compressor("mlmc(fixed_point, probabilities=fixed)"), X), "terngrad", X)


def test_natural_compression_is_the_mantissa_planes():
    """B4.2."""
    assert_two_valued_as(marginals(tg.compressor("mlmc(floating_point, probabilities=fixed)"), X), "natural", X)


def test_adaptive_planes_on_the_same_grid_are_better_than_stochastic_rounding():
    """B11.5: beyond it, p ∝ Δ instead of 2^−l."""
    v = torch.tensor([0.25, 0.5, 0.25, 0.5, 1.0, 1.25], dtype=torch.float64)
    fixed, adaptive = (MLMC(GridBase(1.0), law).variance(v) for law in ("fixed", "adaptive"))
    assert fixed == pytest.approx(float((v % 1 * (1 - v % 1)).sum()), rel=1e-12)
    assert adaptive < 0.95 * fixed


@pytest.mark.parametrize("k", [1, 2, 4])
def test_optimal_importance_sampling_is_poisson_levels_of_one_entry(k):
    """B11.2, A5.2: the same inclusions, so the same marginals; and independent, as Wangni's are."""
    mlmc, importance = (
        tg.compressor(f"mlmc(stopk(s=1), sampling=poisson, draws={k})"),
        tg.compressor(f"importance(k={k})"),
    )
    assert mlmc.variance(X) == pytest.approx(importance.variance(X), rel=1e-12)
    t = importance._threshold(X)
    values = torch.stack([estimate for _, estimate in mlmc.enumerate_levels(X)])
    for j in range(len(X)):
        if X[j] != 0:
            # A level's weight in the enumeration is Σπ / π times its residual.
            sent = float(values[:, j].abs().max()) / k
            assert sent == pytest.approx(max(t, float(X[j].abs())), rel=1e-9)


def test_rand_1_is_levels_of_one_entry_with_equal_probabilities():
    outcomes = {
        tuple(estimate.tolist()): p
        for p, estimate in tg.compressor("mlmc(stopk(s=1), probabilities=fixed)").enumerate_levels(T1)
    }
    expected = {tuple(torch.where(torch.arange(4) == j, 4 * T1, 0.0).tolist()) for j in range(4)}
    assert set(outcomes) == expected
    assert all(p == pytest.approx(1 / 4) for p in outcomes.values())


def test_the_induced_compressor_is_a_base_with_one_draw_of_the_rest():
    """B11.1: Top-k0 always sent, the rest by MLMC: C_1 + Q(v − C_1(v)), outcome by outcome."""
    based = tg.compressor("mlmc(stopk(s=1), base=2)")
    rest = X.clone()
    rest[:2] = 0.0
    inner = tg.compressor("mlmc(stopk(s=1))")
    expected = [(p, estimate + (X - rest)) for p, estimate in inner.enumerate_levels(rest)]
    for (p, ours), (q, theirs) in zip(based.enumerate_levels(X), expected, strict=True):
        assert p == pytest.approx(q, rel=1e-12)
        assert torch.allclose(ours, theirs, rtol=1e-12)


def test_permk_is_levels_dealt_out_by_a_permutation():
    """B12.2: L = M blocks of a shared order, p = 1/M; where workers draw all levels, equal vectors meet no error."""
    mlmc = tg.compressor("mlmc(stopk(s=2), probabilities=fixed, workers=2)")
    for seed in range(5):
        codes = [mlmc.encode(T1, tg.Key(seed).fold(rank=rank)) for rank in range(2)]
        assert {code.level for code in codes} == {1, 2}
        assert torch.allclose(sum(numbers(code) for code in codes) / 2, T1, rtol=1e-15)


def test_a_truncated_estimate_has_its_place_in_the_class_of_bias_and_variance():
    """B11.6: levels up to L′ = 2 only. T1, s = 1: η = .2425356, ω = .7529412, which no compressor named above has.

    It is neither unbiased nor deterministic, and adapts its probabilities, which mix and comp do not.
    """
    c, energy = tg.compressor("compose(mlmc(stopk(s=1)), topk(k=2))"), float(T1.square().sum())
    bias = float((c._mean(T1) - T1).square().sum()) / energy
    assert math.sqrt(bias) == pytest.approx(0.2425356, abs=5e-8)
    assert c.variance(T1) / energy - bias == pytest.approx(0.7529412, abs=5e-8)
    outcomes = list(
        tg.compressor("mlmc(stopk(s=1))").enumerate_levels(torch.tensor([4.0, 2, 0, 0], dtype=torch.float64))
    )
    mean = sum(p * estimate for p, estimate in outcomes)
    about = sum(p * float((estimate - mean).square().sum()) for p, estimate in outcomes)
    assert torch.allclose(mean, c._mean(T1), rtol=1e-15)
    assert about / energy == pytest.approx(0.7529412, abs=5e-8)
    # Class constants over all vectors: η = √(1 − L′/d), ω = L′ − 1 (B11.6), attained by equal entries.
    ones = torch.ones(4, dtype=torch.float64)
    assert float((c._mean(ones) - ones).norm()) / 2 == pytest.approx(math.sqrt(1 - 2 / 4))
    assert (c.variance(ones) - 2) / float(c._mean(ones).square().sum()) == pytest.approx(2 - 1)


@pytest.mark.parametrize(
    ("spread", "own", "own_systematic", "stale_systematic"),
    [(0.0, 1.20, 0.43, 0.43), (0.3, 1.33, 1.19, 0.69), (1.0, 2.27, 2.26, 2.48)],
)
def test_a_shared_stale_order_reproduces_b12_3(spread, own, own_systematic, stale_systematic):
    """MSE of the mean / ‖v̄‖², M = 16, d = 4096, s = 128, v_i = c + ρ z_i; the order is that of |c + ρ · a mean of M|,
    standing for the last aggregate, which is common knowledge. Means of 24 rounds beside the reference, ± 20 %.
    """
    workers, d, rounds = 16, 4096, 24
    base = tg.Key(7).normal(d)
    found = [0.0, 0.0, 0.0]
    for trial in range(rounds):
        key = tg.Key(trial)
        vectors = [base + spread * key.fold(worker=i).normal(d) for i in range(workers)]
        last = base + spread / workers**0.5 * key.fold(role="last").normal(d)
        shared = tg.compressor("mlmc(shared_order(s=128), workers=16)").within(tg.Context(last=LastEstimate(last)))
        stopk = tg.compressor("mlmc(stopk(s=128))")
        designs = (stopk, MLMC(stopk.ladder, workers=workers), shared)
        mean = torch.stack(vectors).mean(0)
        for number, compressor in enumerate(designs):
            total = torch.zeros(d, dtype=torch.float64)
            for rank, v in enumerate(vectors):
                for term in compressor.encoded(v, key.fold(rank=rank)).terms:
                    term.add_to(total, 1 / workers)
            found[number] += float((total - mean).square().sum() / mean.square().sum()) / rounds
    assert found == pytest.approx([own, own_systematic, stale_systematic], rel=0.2)


def test_a_shared_order_is_unbiased_whatever_the_last_estimate():
    for last in itertools.islice(itertools.permutations(range(7)), 0, 5040, 1009):
        context = tg.Context(last=LastEstimate(torch.tensor(last).double()))
        compressor = tg.compressor("mlmc(shared_order(s=2))").within(context)
        assert torch.allclose(sum(p * estimate for p, estimate in compressor.enumerate_levels(X)), X, atol=1e-14)
