"""Tensors at the ends of the range: exact where that is possible, refused with a reason where not."""

import math

import pytest
import torch

import telegrad as tg
from cases import numbers

KEY = tg.Key(0)


@pytest.mark.parametrize("exponent", [-1050, -600, -300, 300, 600, 1000])
@pytest.mark.parametrize(
    "spec", ["identity", "topk(k=2)", "qsgd", "mlmc(stopk(s=2))", "mlmc(fixed_point)", "mlmc(rtn)"]
)
def test_float64_of_any_size_is_compressed_like_its_scaled_copy(spec, exponent):
    """A25.2: powers of two scale the estimate, where squares would overflow or vanish."""
    x = torch.tensor([5.0, -3.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    half = exponent // 2
    moved = x * 2.0**half * 2.0 ** (exponent - half)
    c = tg.compressor(spec)
    expected = numbers(c.encode(x, KEY)) * 2.0**half * 2.0 ** (exponent - half)
    assert torch.allclose(numbers(c.encode(moved, KEY)), expected, rtol=1e-14, atol=5e-324)


@pytest.mark.parametrize("spec", ["topk(k=1)", "sign", "qsgd", "mlmc(stopk(s=1))", "randk(k=1)", "importance(k=1)"])
def test_variance_beyond_float64_is_infinite_and_below_it_zero(spec):
    c = tg.compressor(spec)
    assert c.variance(torch.tensor([1e300, 2e300], dtype=torch.float64)) == math.inf
    assert c.variance(torch.tensor([1e-300, 2e-300], dtype=torch.float64)) == 0.0
    assert c.variance(torch.tensor([1e100, 2e100], dtype=torch.float64)) == pytest.approx(
        1e200 * c.variance(torch.tensor([1.0, 2.0], dtype=torch.float64)), rel=1e-9
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_an_estimate_that_overflows_is_refused(dtype):
    x = torch.full((10,), torch.finfo(dtype).max, dtype=dtype)
    with pytest.raises(tg.NonFiniteError, match=rf"randk\(k=1\) would send overflows {dtype} .*scale the tensor down"):
        tg.compressor("randk(k=1)").encode(x, KEY)
    assert torch.equal(tg.compressor("topk(k=10)").encode(x).decode(), x)


def test_the_largest_floats_survive_truncation():
    largest = torch.finfo(torch.float64).max
    x = torch.tensor([largest, -largest / 2, 2.0**500], dtype=torch.float64)
    kept = numbers(tg.compressor("floating_point(level=2)").encode(x))
    assert kept.tolist() == [1.75 * 2.0**1023, -1.75 * 2.0**1022, 2.0**500]
    assert torch.equal(numbers(tg.compressor("floating_point(level=52)").encode(x)), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_subnormal_numbers_are_not_flushed(dtype):
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    x = (torch.tensor([1.0, -3.0, 2.0, 0.0], dtype=torch.float64) * smallest).to(dtype)
    assert int(x.count_nonzero()) == 3
    for spec in ("identity", "topk(k=3)", "floating_point(level=5)", "importance(k=3)"):
        assert torch.equal(tg.compressor(spec).encode(x, KEY).decode(), x)
