"""Bit planes: counts and planes against exact fractions, and the same for all forms and threads."""

from fractions import Fraction

import pytest
import torch

from telegrad.kernels.quantising.bit_planes import PLANES, leading_bits, plane_counts, quotients

SIZES = [1, 127, 128, 2000, 65_536 + 300]


def vector(n, dtype=torch.float32):
    v = torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) ** 5
    v[:: max(1, n // 7)] = 0.0
    return v.to(dtype)


def test_the_bits_of_quotients_that_are_exact():
    """m = 8: the quotients of these are what they are in binary, and 8 itself is .111…."""
    v = torch.tensor([8.0, -4.0, 3.0, 0.0, 2.0**-70, -7.5], dtype=torch.float64)
    q, rest = quotients(v, 8.0)
    values = [Fraction(int(a) + Fraction(b)) * 8 / 2**PLANES for a, b in zip(q, rest.tolist(), strict=True)]
    assert values == [abs(Fraction(x)) for x in v.tolist()]
    assert leading_bits(v, 8.0, 3, 3).tolist() == [7, -4, 3, 0, 0, -7]
    assert leading_bits(v, 8.0, 2, 1).tolist() == [1, 0, 1, 0, 0, -1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_counts_are_those_of_single_bits_in_every_form(n, dtype, disable_numba, threads):
    v = vector(n, dtype)
    v[-1] = 100.0
    m = float(v.abs().max().double())
    q, rest = quotients(v, m)
    threads(2)
    counts, squares = plane_counts(v, m)
    assert counts.tolist() == [int((q >> PLANES - level & 1).sum()) for level in range(1, PLANES + 1)]
    assert float(squares.sum()) == pytest.approx(float(rest.square().sum()), rel=1e-12)
    planes = [leading_bits(v, m, level, count) for level, count in ((1, 1), (9, 9), (30, 30), (62, 1))]
    threads(1)
    disable_numba()
    plain_counts, plain_squares = plane_counts(v, m)
    assert torch.equal(plain_counts, counts)
    assert torch.equal(plain_squares, squares)
    for plane, (level, count) in zip(planes, ((1, 1), (9, 9), (30, 30), (62, 1)), strict=True):
        assert torch.equal(leading_bits(v, m, level, count), plane)
