"""The general objective of cost-aware probabilities: (c + ω) · bits (B9)."""

import pytest
import torch

import telegrad as tg
from telegrad.mlmc.probabilities import weighed_probabilities
from telegrad.spec import build

NORMS = torch.tensor([3, 2, 1, 0.5, 0.3], dtype=torch.float64)
COSTS = torch.tensor([10, 20, 40, 80, 160], dtype=torch.float64)
ENERGY = 14.34


def objective(p, excess):
    return (float((NORMS.square() / p).sum()) - excess) * float((p * COSTS).sum())


def test_the_example_of_the_reference():
    """B9.3: c = 0: 789.727, against 800.616 of p ∝ Δ/√K and 928.853 of p ∝ Δ; c = 8 pushes mass to the cheapest."""
    p = weighed_probabilities(NORMS, COSTS, ENERGY)
    assert p.tolist() == pytest.approx([0.539408, 0.290117, 0.111312, 0.041229, 0.017934], abs=5e-7)
    assert objective(p, ENERGY) == pytest.approx(789.727, abs=5e-4)
    assert objective(NORMS / COSTS.sqrt() / (NORMS / COSTS.sqrt()).sum(), ENERGY) == pytest.approx(800.616, abs=5e-4)
    assert objective(NORMS / NORMS.sum(), ENERGY) == pytest.approx(928.853, abs=5e-4)
    p = weighed_probabilities(NORMS, COSTS, ENERGY - 8 * ENERGY)
    assert p.tolist() == pytest.approx([0.749389, 0.173793, 0.052325, 0.017346, 0.007147], abs=5e-7)


@pytest.mark.parametrize("c", [0.0, 0.5, 1.0, 3.0, 64.0])
def test_no_law_nearby_is_better(c):
    """Stationarity: along every direction that keeps Σp = 1 the objective rises."""
    excess = (1 - c) * ENERGY
    p = weighed_probabilities(NORMS, COSTS, excess)
    best, generator = objective(p, excess), torch.Generator().manual_seed(0)
    for _ in range(40):
        step = torch.randn(5, generator=generator, dtype=torch.float64)
        moved = p * (1 + 0.01 * step)
        assert objective(moved / moved.sum(), excess) >= best * (1 - 1e-12)


def test_with_c_one_and_nothing_always_sent_it_is_the_root_rule():
    """B9.1: R = 0 gives τ = 0."""
    root = NORMS / COSTS.sqrt()
    assert torch.allclose(weighed_probabilities(NORMS, COSTS, 0.0), root / root.sum(), rtol=1e-6)


def test_levels_of_norm_zero_are_never_drawn():
    norms = torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64)
    assert weighed_probabilities(norms, COSTS[:3], 1.0).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("ladder", ["fixed_point", "stopk(s=3)", "floating_point", "rtn(grids=5)"])
@pytest.mark.parametrize("base", [0, 1])
def test_the_estimator_minimises_what_it_says(ladder, base):
    """(c + ω) · expected bits, with what is always sent, against the other laws; and still unbiased."""
    v = torch.randn(40, generator=torch.Generator().manual_seed(2), dtype=torch.float64) ** 3
    energy = float(v.square().sum())
    levels = build(ladder, "ladder").levels(v)
    costs = levels.costs()[base:] + float((levels.costs()[:base] - 128).sum())

    def value(c, spec):
        compressor = tg.compressor(spec)
        pi = compressor._inclusions(v, levels)[base:]
        return (c + compressor.variance(v) / energy) * float((pi * costs).sum())

    for c in (0, 1, 16):
        spec = f"mlmc({ladder}, probabilities=cost, base={base}, weight={float(c)})"
        best = value(c, spec)
        for other in ("adaptive", "fixed", "cost"):
            assert best <= value(c, f"mlmc({ladder}, probabilities={other}, base={base})") * (1 + 1e-9)
        mean = sum(p * estimate for p, estimate in tg.compressor(spec).enumerate_levels(v))
        assert torch.allclose(mean, v, rtol=0, atol=1e-12 * energy**0.5)
        assert tg.compressor(spec).variance(v) <= tg.compressor(spec).omega(40) * energy


def test_a_weight_wants_the_law_by_cost():
    with pytest.raises(tg.SpecError, match="with probabilities=cost"):
        tg.compressor("mlmc(stopk(s=1), weight=2.0)")
    with pytest.raises(tg.SpecError, match="from 0"):
        tg.compressor("mlmc(stopk(s=1), probabilities=cost, weight=-1.0)")
