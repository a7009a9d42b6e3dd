"""Rounding to a shorter dtype with a key is the defining rounding with that key's uniforms."""

import math

import pytest
import torch

import telegrad as tg
from telegrad.kernels.quantising.narrowing import narrowed, narrowed_number
from telegrad.kernels.reference import round_to_dtype

SHORT = [torch.float32, torch.bfloat16, torch.float16]


def _numbers(dtype):
    """Numbers over dtype's whole range, its subnormal ones, ties of neighbours, zeros, and some beyond it."""
    z = tg.Key(7).normal(400)
    spread = z * torch.tensor(2.0).double() ** torch.randint(
        -30, 15, (400,), generator=torch.Generator().manual_seed(1)
    )
    edges = torch.tensor([0.0, -0.0, 1.0, 1.0 + torch.finfo(dtype).eps / 2, torch.finfo(dtype).max, 1e300, -1e300])
    tiny = z[:50] * torch.finfo(dtype).smallest_normal / 8
    return torch.cat([spread, edges.double(), tiny])


@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize("given", [torch.float64, torch.float32], ids=str)
def test_compiled_rounding_is_the_defining_one(dtype, given, disable_numba):
    v, key = _numbers(dtype).to(given), tg.Key(3).fold(role="values")
    expected = round_to_dtype(v.double(), dtype, key.uniform(len(v)))
    assert torch.equal(narrowed(v, dtype, key), expected)
    assert torch.equal(narrowed(v[:24].view(2, 3, 4), dtype, key), expected[:24].view(2, 3, 4))
    disable_numba()
    assert torch.equal(narrowed(v, dtype, key), expected)


@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_parts_are_rounded_as_the_whole_is(dtype, disable_numba):
    v, key = _numbers(dtype), tg.Key(4)
    for change in (lambda: None, disable_numba):
        change()
        parts = [narrowed(v[start : start + 90], dtype, key, start) for start in range(0, len(v), 90)]
        assert torch.equal(torch.cat(parts), narrowed(v, dtype, key))


@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_one_number_is_rounded_like_the_first_of_many(dtype):
    for seed, value in enumerate(_numbers(dtype).tolist()):
        one = torch.tensor([value], dtype=torch.float64)
        assert narrowed_number(value, dtype, tg.Key(seed)) == float(narrowed(one, dtype, tg.Key(seed)))
        assert narrowed_number(value, dtype, None) == float(one.to(dtype))
    assert narrowed_number(math.pi, torch.float64, tg.Key(0)) == math.pi


def test_nothing_is_rounded_to_the_widest_dtype():
    v = tg.Key(1).normal(10)
    assert torch.equal(narrowed(v, torch.float64, tg.Key(0)), v)
