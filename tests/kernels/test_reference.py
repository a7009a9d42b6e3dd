"""The reference kernels against exact arithmetic and torch's own conversions."""

import math
from fractions import Fraction

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from telegrad.kernels.reference import (
    binary_exponent,
    descending_order,
    power_of_two,
    round_to_dtype,
    round_to_integer,
    rounding_variance,
    sorted_descending,
)

SHORT = [torch.float32, torch.bfloat16, torch.float16]
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def test_powers_of_two_are_exact_over_the_whole_range():
    exponents = torch.arange(-1022, 1024)
    assert power_of_two(exponents).tolist() == [math.ldexp(1.0, e) for e in exponents.tolist()]


@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_the_binary_exponent_is_exact_next_to_powers_of_two(numbers):
    v = torch.tensor([n for x in numbers for n in (x, math.nextafter(x, 0.0))], dtype=torch.float64)
    for x, exponent in zip(v.tolist(), binary_exponent(v).tolist(), strict=True):
        assert exponent == (math.frexp(x)[1] - 1 if x else 0)


def test_stochastic_rounding_goes_up_below_the_fraction():
    y, u = torch.tensor([2.25, -2.25, 3.0, 0.5]).double(), torch.tensor([0.2, 0.8, 0.0, 0.5]).double()
    assert round_to_integer(y, u).tolist() == [3.0, -3.0, 3.0, 0.0]


@pytest.mark.parametrize("dtype", SHORT, ids=str)
@given(st.lists(FLOATS, min_size=1, max_size=10), st.floats(0, 1, exclude_max=True))
def test_rounding_gives_one_of_the_two_neighbours_and_keeps_what_is_representable(dtype, numbers, u):
    v = torch.tensor(numbers, dtype=torch.float64)
    v = v[v.abs() <= torch.finfo(dtype).max]
    rounded = round_to_dtype(v, dtype, torch.full_like(v, u))
    assert rounded.dtype == dtype
    for exact, got in zip(v.tolist(), rounded, strict=True):
        if float(torch.tensor(exact, dtype=torch.float64).to(dtype)) == exact:
            assert float(got) == exact
        below = torch.nextafter(got, torch.tensor(-math.inf, dtype=dtype))
        above = torch.nextafter(got, torch.tensor(math.inf, dtype=dtype))
        assert float(below) < exact < float(above)


@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_the_shares_of_the_neighbours_are_exact_rationals(dtype):
    """mean and variance over all uniforms k/16 for numbers a sixteenth of a step apart, subnormal ones included."""
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    for step, base in [
        (torch.finfo(dtype).eps, 1.0),
        (smallest, 0.0),
        (smallest, 5 * smallest),
        (2.0**-3, 2.0**-3 / torch.finfo(dtype).eps),
    ]:
        v = torch.tensor([base + step * k / 16 for k in range(17)], dtype=torch.float64)
        for sign in (1, -1):
            draws = torch.stack(
                [round_to_dtype(sign * v, dtype, torch.full((17,), k / 16).double()).double() for k in range(16)]
            )
            for place, exact in enumerate((sign * v).tolist()):
                values = [Fraction(x) for x in draws[:, place].tolist()]
                assert sum(values) == 16 * Fraction(exact)
                variance = sum((x - Fraction(exact)) ** 2 for x in values) / 16
                declared = float(rounding_variance(sign * v, dtype)[place])
                assert declared == pytest.approx(float(variance), rel=1e-12, abs=0.0)


@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_without_uniforms_rounding_is_to_nearest_and_beyond_the_range_infinite(dtype):
    v = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(round_to_dtype(v, dtype, None), v.to(dtype))
    beyond = torch.tensor([2.0 * torch.finfo(dtype).max, -1e300], dtype=torch.float64)
    assert round_to_dtype(beyond, dtype, torch.zeros(2).double()).tolist() == [math.inf, -math.inf]
    assert torch.equal(round_to_dtype(v, torch.float64, torch.zeros(100).double()), v)
    assert not bool(rounding_variance(v, torch.float64).any())


@pytest.mark.parametrize("dtype", [torch.float64, *SHORT], ids=str)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=80))
def test_orders_are_stable(dtype, entries):
    magnitude = torch.tensor(entries).to(dtype)
    expected = sorted(range(len(entries)), key=lambda i: (-entries[i], i))
    assert descending_order(magnitude).tolist() == expected
    assert sorted_descending(magnitude).tolist() == sorted(entries, reverse=True)
