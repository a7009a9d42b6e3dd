"""Rounding to the nearest point: ties, ends and both forms."""

import pytest
import torch

import telegrad as tg
from telegrad.kernels.nearest import nearest_even, nearest_odd


def test_halves_go_to_the_even_point_or_up():
    v = torch.tensor([0.25, -0.25, 0.75, -0.75, 0.5, 9.0, -9.0, 0.0], dtype=torch.float64)
    assert nearest_even(v, 0.5, 3).tolist() == [0, 0, 2, -2, 1, 3, -3, 0]
    # Points at odd multiples of a quarter: every multiple of a half lies between two.
    assert nearest_odd(v, 0.5, 3).tolist() == [1, -1, 3, -3, 3, 3, -3, 1]


@pytest.mark.parametrize(
    ("top", "dtype"), [(3, torch.int8), (127, torch.int8), (200, torch.int16), (2**29, torch.int64)]
)
@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_what_is_found_is_nearest_in_every_form(top, dtype, given, disable_numba, threads):
    v = (tg.Key(1).normal(200_000) * 2).to(given)
    step = 2 * float(v.double().abs().max()) / (2 * top + 1)

    def check():
        even, odd = nearest_even(v, step, top), nearest_odd(v, step, 2 * top + 1)
        assert even.dtype == dtype
        assert int(even.abs().max()) <= top
        assert bool((odd % 2 != 0).all())
        limit = step / 2 * (1 + 1e-9) + 1e-12
        assert float((v.double() - even.double() * step).abs().max()) <= limit
        assert float((v.double() - odd.double() * step / 2).abs().max()) <= limit
        return even, odd

    found = check()
    threads(2)
    assert all(torch.equal(a, b) for a, b in zip(found, check(), strict=True))
    disable_numba()
    assert all(torch.equal(a, b) for a, b in zip(found, check(), strict=True))
