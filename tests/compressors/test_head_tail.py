"""The kept head and the rotated tail (A27)."""

import pytest
import torch

import telegrad as tg
from cases import numbers
from quantile_vectors import quantile_vectors

KEY = tg.Key(seed=27)

# B14's last row for methods: Gauss, Laplace, t3, lognormal, exponential decay; the last is not given at two bits.
ROWS = {49_000: (1.66, 1.66, 1.49, 0.188, 0.99), 200_070: (0.098, 0.097, 0.083, 0.0047, None)}


def relative_error(compressor, x, key=KEY):
    code = compressor.encode(x, key)
    return float((numbers(code) - x.double()).square().sum() / x.double().square().sum()), code


@pytest.mark.parametrize("coder", ["entropy", "trellis", "trellis, states=256"])
@pytest.mark.parametrize("bits", [0.09, 0.49, 2])
def test_without_a_head_it_is_entropy_coded_eden(bits, coder):
    """k0 = 0 equals A21.5: on a Gaussian vector no head pays, and the messages are the same."""
    x = quantile_vectors()["gauss"]
    code = tg.compressor(f"head_tail(bits={bits}, coder={coder})").encode(x, KEY)
    assert tg.pack(code) == tg.pack(tg.compressor(f"eden(bits={bits}, coder={coder})").encode(x, KEY))


@pytest.mark.parametrize("bits", [0.25, 0.49, 1, 2, 4])
@pytest.mark.parametrize("law", ["gauss", "t3"])
@pytest.mark.parametrize("coder", ["entropy", "trellis"])
def test_the_error_is_the_predicted_one(law, bits, coder):
    """(A27.2) within 5 %; entries in random order, since the places of a sorted vector's head cost nothing."""
    x, compressor = quantile_vectors()[law], tg.compressor(f"head_tail(bits={bits}, coder={coder})")
    x = x[tg.Key(0).permutation(len(x))]
    error, code = relative_error(compressor, x)
    assert error == pytest.approx(compressor.variance(x) / float(x.double().square().sum()), rel=0.05)
    assert 8 * len(tg.pack(code)) == pytest.approx(bits * 1e5, rel=0.005)


@pytest.mark.parametrize("budget", ROWS)
def test_the_rows_of_the_equal_bit_table(budget):
    """B14 at measured packed bits: within 10 %, and better where a coarser head than the reference's 11 bits pays."""
    compressor = tg.compressor(f"head_tail(bits={budget / 1e5})")
    for x, row in zip(quantile_vectors().values(), ROWS[budget], strict=True):
        error, code = relative_error(compressor, x)
        assert 8 * len(tg.pack(code)) <= 1.003 * budget
        assert row is None or error <= 1.1 * row


def test_what_a_coarse_head_gains():
    """Measured, at the two budgets: the lognormal row .188 and .0047 becomes .13 and .0023."""
    x = quantile_vectors()["lognormal"]
    assert relative_error(tg.compressor("head_tail(bits=0.49)"), x)[0] < 0.14
    assert relative_error(tg.compressor("head_tail(bits=2.0007)"), x)[0] < 0.0025


def test_short_vectors_with_a_head_are_unbiased():
    """z-test of every entry: 800 draws, z = 5 (level 6e-7 each)."""
    v = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 5
    compressor = tg.compressor("head_tail(bits=12)")
    codes = [compressor.encode(v, KEY.fold(draw=n)) for n in range(800)]
    assert all(len(code.terms) == 2 for code in codes)
    estimates = torch.stack([numbers(code) for code in codes])
    assert bool(((estimates.mean(0) - v).abs() <= 5 * estimates.std(0) / 800**0.5 + 1e-9).all())


def test_a_vector_of_few_entries_is_sent_as_its_head():
    v = torch.zeros(5000)
    v[[7, 100, 4999]] = torch.tensor([2.0, -4.0, 8.0])
    code = tg.compressor("head_tail(bits=0.2)").encode(v, KEY)
    assert torch.equal(code.decode(), v)
    assert code.nbits < 400


def test_magnitudes_too_far_apart_for_one_step_are_still_sent():
    v = torch.ones(3000, dtype=torch.float64)
    v[5] = 1e30
    for bits in (0.5, 8):
        error, _ = relative_error(tg.compressor(f"head_tail(bits={bits})"), v)
        assert error < 1e-8


def test_unfit_bits_are_refused():
    with pytest.raises(tg.SpecError, match="bits a coordinate above 0"):
        tg.compressor("head_tail(bits=0)")
