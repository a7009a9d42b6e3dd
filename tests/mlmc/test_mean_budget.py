"""Bit planes within a mean number of bits: the price and the error of every choice, level by level."""

import pytest
import torch

import telegrad as tg
from quantile_vectors import quantile_vectors
from telegrad.mlmc.mean_budget import planes_within
from telegrad.portfolio import Portfolio
from telegrad.wire.code import Code, Term

VECTORS = quantile_vectors()


def bits_of_levels(v, compressor):
    """Σ P(level is sent) · the bits of its terms, and those of an empty message: the mean, every level packed."""
    head, levels, total = Code((len(v),), v.dtype).nbits, compressor.ladder.levels(v), 0.0
    pi = compressor._inclusions(v, levels).tolist()
    for level, inclusion in enumerate(pi, 1):
        n = compressor.draws
        sent = inclusion if compressor.sampling == "poisson" else 1 - (1 - inclusion / n) ** n
        if sent > 1e-7:
            terms = (Term(t.positions, t.values.rounded(v.dtype, None)) for t in levels.residual(level))
            total += sent * (Code((len(v),), v.dtype, tuple(terms)).nbits - head)
    return head + total


@pytest.mark.parametrize("bits", [0.005, 0.02, 0.09, 0.3])
@pytest.mark.parametrize("law", ["t3", "lognormal"])
def test_the_price_is_the_mean_over_levels_and_the_error_the_exact_variance(law, bits):
    v = VECTORS[law]
    found = planes_within(v, bits * len(v))
    assert found[-1][0].sampling == "poisson"
    for compressor, price, error in found:
        assert price <= 1.0001 * bits * len(v)
        assert bits_of_levels(v, compressor) == pytest.approx(price, rel=0.02)
        assert error == pytest.approx(compressor.variance(v), rel=1e-6)


def test_auto_of_a_mean_errs_less_where_entries_are_large_and_bits_few():
    v = VECTORS["lognormal"]
    for bits, gain in ((0.0124, 1.6), (0.05, 1.25)):
        mean, message = (tg.compressor(f"auto(bits={bits}, budget={b})").choose(v) for b in ("mean", "message"))
        assert mean.compressor.spec_name == "mlmc"
        assert mean.error < message.error / gain
    assert tg.compressor("auto(bits=0.5, budget=mean)").choose(VECTORS["gauss"]).compressor.spec_name == "head_tail"


def test_auto_of_a_mean_is_unbiased_and_one_level_may_be_all_it_sends():
    """z-test of every entry, 2000 draws, z = 5 (level 6e-7 each)."""
    v = torch.tensor([9.0, -3.0, 0.5, 0.25, 0.1, -0.1, 0.0, 0.01] * 40)
    compressor, key = tg.compressor("auto(bits=1, budget=mean)"), tg.Key(seed=4)
    found = Portfolio(v, mean=True).at(1.0)
    assert any(choice.compressor.spec_name == "mlmc" for choice in found)
    estimates = torch.stack([compressor.encode(v, key.fold(draw=n)).decode().double() for n in range(2000)])
    assert bool(((estimates.mean(0) - v).abs() <= 5 * estimates.std(0) / 2000**0.5 + 1e-9).all())


def test_no_planes_where_the_header_is_longer():
    assert planes_within(torch.ones(10), 60.0) == []
