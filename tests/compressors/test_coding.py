"""The value codings of sparse messages (B2.7): two neighbours, the mean exact; variances and their worst cases."""

import math

import pytest
import torch

from cases import FixedKey
from telegrad.compressors.coding import code_values, coding_omega, coding_variance, nonzero_term
from telegrad.random import Key
from telegrad.wire.positions import All

BELOW_ONE = 1 - 2.0**-53
NUMBERS = torch.tensor([2.5, -0.1, 1.0, -3.0, 7e-12, 6.02e23, -1 / 3, 0.999999, 2.0**-100 * 1.7], dtype=torch.float64)


def coded(v, coding, u, dtype=torch.float64, scale_u=0.5):
    """Dense numbers, zero where an entry is not sent."""
    term = code_values(All(len(v)), v, coding, dtype, FixedKey(u, {"scale": scale_u}))
    out = torch.zeros(len(v), dtype=torch.float64)
    term.add_to(out, 1.0)
    return out


def neighbours(number, coding, largest):
    """The two values of a coding around a number, by magnitude; for bf16 from torch's own rounding."""
    magnitude = abs(number)
    if coding == "sign":
        return (largest, largest) if magnitude == largest else (0.0, largest)
    if coding == "log":
        low = 2.0 ** (math.frexp(magnitude)[1] - 1)
        return (low, low) if low == magnitude else (low, 2 * low)
    nearest = torch.tensor(magnitude, dtype=torch.float64).bfloat16()
    away = torch.nextafter(nearest, torch.tensor(math.inf if float(nearest) < magnitude else 0.0).bfloat16())
    return (float(nearest),) * 2 if float(nearest) == magnitude else tuple(sorted([float(nearest), float(away)]))


@pytest.mark.parametrize("coding", ["bf16", "log", "sign"])
def test_every_number_takes_its_two_neighbours_with_the_mean_exact(coding):
    """A11.1 for log; sign as in B2.7; bf16 to the grid of bfloat16."""
    largest = float(NUMBERS.abs().max())
    variance = 0.0
    for place, number in enumerate(NUMBERS.tolist()):
        low, high = (math.copysign(x, number) for x in neighbours(number, coding, largest))
        ends = {float(coded(NUMBERS, coding, u)[place]) for u in (0.0, BELOW_ONE)}
        assert ends == {low, high}
        first, second = (float(coded(NUMBERS, coding, u)[place]) for u in (0.0, BELOW_ONE))
        if first == second:
            continue
        share = (number - second) / (first - second)
        assert float(coded(NUMBERS, coding, share * (1 - 1e-9))[place]) == first
        assert float(coded(NUMBERS, coding, min(BELOW_ONE, share * (1 + 1e-9)))[place]) == second
        variance += (number - second) * (first - number)
    assert coding_variance(NUMBERS, coding, torch.float64) == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_fp32_means_the_dtype_of_the_tensor_with_the_mean_exact(dtype):
    """A number that float32 (or a shorter dtype) cannot hold is rounded to one of its two neighbours in it."""
    v = torch.tensor([1 / 3, -0.1, 2.5, 1e-7 / 3, -5e-8], dtype=torch.float64)
    low, high = coded(v, "fp32", BELOW_ONE, dtype), coded(v, "fp32", 0.0, dtype)
    nearest = v.to(dtype)
    assert torch.equal(low.to(dtype).double(), low)
    assert bool((low <= v).all())
    assert bool((v <= high).all())
    assert bool(((low == nearest.double()) | (high == nearest.double())).all())
    up = torch.nextafter(low.to(dtype), torch.tensor(math.inf, dtype=dtype)).double()
    assert torch.equal(torch.where(low == v, low, up), high)
    share = torch.where(low == high, 0.0, (v - low) / (high - low))
    for place, u in enumerate(share.tolist()):
        if u > 0:
            assert float(coded(v, "fp32", u * (1 - 1e-9), dtype)[place]) == float(high[place])
            assert float(coded(v, "fp32", u * (1 + 1e-9), dtype)[place]) == float(low[place])
    expected = float(((v - low) * (high - v)).sum())
    assert coding_variance(v, "fp32", dtype) == pytest.approx(expected, rel=1e-9)


def test_log_has_the_variance_of_natural_compression():
    """A11: 2.5 becomes 2 (3/4) or 4 (1/4), MSE .75; f = 1/3 attains t²/8 (A11.2)."""
    assert coding_variance(torch.tensor([2.5], dtype=torch.float64), "log", torch.float32) == 0.75
    worst = torch.tensor([4 / 3, -8 / 3], dtype=torch.float64)
    assert coding_variance(worst, "log", torch.float32) == pytest.approx(coding_omega(2, "log") * 80 / 9, rel=1e-12)
    assert coding_omega(5, "log") == 0.125


@pytest.mark.parametrize("n", [1, 4, 100])
def test_sign_coding_attains_the_worst_case_of_a10_2(n):
    v = torch.full((n,), 1 / (1 + n**0.5), dtype=torch.float64)
    v[0] = 1.0
    relative = coding_variance(v, "sign", torch.float32) / float(v.square().sum())
    assert relative == pytest.approx(coding_omega(n, "sign"), rel=1e-12, abs=1e-15)
    assert coding_variance(torch.tensor([1.0, 2, 4], dtype=torch.float64), "sign", torch.float32) == 7.0  # A10


def test_the_scale_of_sign_coding_is_rounded_without_a_bias():
    v = torch.tensor([0.1, -0.05], dtype=torch.float64)
    down, up = (float(coded(v, "sign", 0.0, torch.float32, scale_u=u)[0]) for u in (BELOW_ONE, 0.0))
    assert down < 0.1 < up
    assert torch.nextafter(torch.tensor(down), torch.tensor(1.0)).item() == up
    share = (0.1 - down) / (up - down)
    assert float(coded(v, "sign", 0.0, torch.float32, scale_u=share * (1 - 1e-6))[0]) == up
    assert float(coded(v, "sign", 0.0, torch.float32, scale_u=share * (1 + 1e-6))[0]) == down


@pytest.mark.parametrize("coding", ["fp32", "bf16", "log", "sign"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_20000_copies_have_the_declared_mean_and_variance(coding, dtype):
    """Null: mean and squared error of the coding are the declared ones; N = 20,000 copies of 3 numbers, z = 5."""
    piece, copies = torch.tensor([1.1, -0.7, 0.019], dtype=torch.float64), 20_000
    v = piece.repeat(copies)
    out = torch.zeros(len(v), dtype=torch.float64)
    code_values(All(len(v)), v, coding, dtype, Key(9)).add_to(out, 1.0)
    estimates = out.view(copies, 3)
    squared = (estimates - piece).square().sum(1)
    declared = coding_variance(v, coding, dtype) / copies
    scale_rounding = 1e-13 if coding == "sign" else 0.0
    assert abs(float(squared.mean()) - declared) <= 5 * float(squared.std()) / copies**0.5 + scale_rounding
    error_of_mean = 5 * estimates.std(0) / copies**0.5
    assert bool(((estimates.mean(0) - piece).abs() <= error_of_mean + 1e-7 * (coding == "sign")).all())


def test_numbers_without_a_leading_one_are_left_out_where_a_coding_needs_one():
    """Subnormal float64 numbers; A25, B4.5."""
    v = torch.tensor([1.0, 2.0**-1060, -2.0], dtype=torch.float64)
    for coding in ("log", "bf16", "sign"):
        assert nonzero_term(All(3), v, coding, torch.float64, Key(0)).positions.n <= 2
    kept = nonzero_term(All(3), v, "fp32", torch.float64, Key(0))
    assert torch.equal(kept.values.numbers(), v)
