"""Floats by their exponents: the compiled loops, whatever the number of threads, against the defining forms."""

import numpy as np
import pytest
import torch

import telegrad as tg
from telegrad.kernels.coding.symbols import fixed_width
from telegrad.kernels.quantising.exponents import (
    bit_counts,
    exponent_range,
    joined,
    rounded_to_levels,
    rounded_to_powers,
    split,
)
from telegrad.kernels.reference import binary_exponent, power_of_two

SIZES = [1, 40, 63, 64, 5000, 200_000]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def _vector(n, dtype):
    """Numbers of every size that the dtype has, powers of two, and subnormal ones (but for float64)."""
    z = tg.Key(5).normal(n)
    v = (z * 2.0 ** torch.randint(-8, 8, (n,), generator=torch.Generator().manual_seed(0)).double()).to(dtype)
    info = torch.finfo(dtype)
    edges = torch.tensor([1.0, -2.0, info.max, -info.smallest_normal, 1 + info.eps], dtype=dtype)
    v[: len(edges)] = edges[:n]
    if dtype != torch.float64 and n > 60:
        v[10:60] = (torch.arange(1, 51).double() * info.smallest_normal * info.eps).to(dtype)
    v[v == 0] = 1.0
    return v


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_every_form_splits_and_rounds_alike(n, dtype, disable_numba, threads):
    v, key = _vector(n, dtype), tg.Key(2).fold(role="values")
    x = v.double()
    exponent = binary_exponent(x).to(torch.int64)
    fraction = x.abs() / power_of_two(exponent) - 1
    bits = {torch.float64: 52, torch.float32: 23, torch.bfloat16: 7, torch.float16: 10}[dtype]

    def check():
        negative, powers = rounded_to_powers(v, key)
        assert torch.equal(negative, x < 0)
        assert torch.equal(powers.to(torch.int64), exponent + (key.uniform(n) < fraction))
        low, high, having = exponent_range(torch.cat([v, v.new_zeros(3)]))
        assert (low, high, having) == (int(exponent.min()), int(exponent.max()), n)
        negative, below, packed = split(v, low, high, 1, bits)
        mantissa = (fraction * 2.0**bits).to(torch.int64)
        assert negative.tolist() == np.packbits((x < 0).numpy()).tolist()
        assert torch.equal(below.to(torch.int64), high - exponent)
        assert packed.numpy().tobytes() == fixed_width(mantissa.numpy(), bits).tobytes()
        # Together again they are the tensor.
        assert torch.equal(joined(negative, below, high, packed, bits, 2.0**-bits, torch.float64), x)
        assert split(v, low, high)[2] is None
        counts = bit_counts(v, low, high, bits)
        assert len(counts) == high - low + 1
        for level in (1, bits // 2, bits):
            of_bit = (mantissa >> (bits - level)) & 1
            assert split(v, low, high, level, level)[2].tolist() == np.packbits(of_bit.numpy()).tolist()
            cut = fixed_width((mantissa >> (bits - level)).numpy(), level)
            assert split(v, low, high, 1, level)[2].numpy().tobytes() == cut.tobytes()
            assert torch.equal(counts[:, level - 1], torch.bincount(exponent - low, of_bit.double()).to(torch.int64))

    for count in (1, 2):
        threads(count)
        check()
    disable_numba()
    check()


def test_what_is_joined_is_rounded_once_to_a_shorter_dtype():
    negative, below = torch.tensor([0b011 << 5]).byte(), torch.tensor([997, 2022, 0])
    mantissa = torch.tensor([0b101001 << 2, 0]).byte()  # 5, 1, 0
    powers = joined(negative, below, 1000, None, 0, 0.0, torch.float64)
    assert powers.tolist() == [8.0, -(2.0**-1022), -(2.0**1000)]
    wide = joined(negative, below, 1000, mantissa, 3, 0.3, torch.float64)
    assert wide.tolist() == [8.0 + 8.0 * (5 * 0.3), -(2.0**-1022 * 1.3), -(2.0**1000)]
    assert torch.equal(joined(negative, below, 1000, mantissa, 3, 0.3, torch.float32), wide.float())


@pytest.mark.parametrize("levels", [1, 2, 30])
@pytest.mark.parametrize("n", [50, 3000, 200_000])
def test_every_form_finds_the_same_levels(n, levels, disable_numba, threads):
    v, key = tg.Key(4).normal(n).float(), tg.Key(9)
    v[:3] = torch.tensor([0.0, 8.0, 4.0])  # zero, beyond the norm, a level itself
    points = torch.cat([torch.zeros(1), 2.0 ** torch.arange(1 - levels, 1)]).double()
    y = (v.double().abs() / 8.0).clamp(max=1.0)
    below = torch.searchsorted(points, y, right=True) - 1
    above = (below + 1).clamp(max=levels)
    gap = (points[above] - points[below]).clamp(min=2.0**-60)
    level = below + (key.uniform(n) < (y - points[below]) / gap)
    expected = torch.where(v < 0, -level, level).to(torch.int8)
    for count in (1, 2):
        threads(count)
        assert torch.equal(rounded_to_levels(v, 8.0, levels, key), expected)
    disable_numba()
    assert torch.equal(rounded_to_levels(v, 8.0, levels, key), expected)
