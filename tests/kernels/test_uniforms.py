"""The stream of a key in compiled loops: the numbers of Key.uniform, on every number of threads."""

import pytest
import torch

from telegrad.kernels.random_numbers.uniforms import drawn_in_proportion, normals, uniforms
from telegrad.random import Key


@pytest.mark.parametrize(("n", "start"), [(0, 0), (1, 0), (1000, 7), (200_000, 0), (10, 2**40)])
def test_compiled_streams_are_the_keys_own(n, start, disable_numba):
    key = Key(seed=0).fold(step=3, rank=1, name="layer1.weight")
    expected, before = key.uniform(n, start=start), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.equal(uniforms(key, n, start), expected)
    finally:
        torch.set_num_threads(before)
    disable_numba()
    assert torch.equal(uniforms(key, n, start), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("threshold", [0.0, 2.0**-140, 1e-3, 1.3, 6e4])
def test_draws_are_those_of_the_definition_on_the_brink_too(dtype, threshold, disable_numba):
    """Magnitudes at, just below and just above u · threshold, among zeros and the largest and smallest numbers."""
    key, n, limits = Key(7), 5000, torch.finfo(dtype)
    u = key.uniform(n)
    v = (u * threshold).to(dtype)
    v[1::4] = torch.nextafter(v[1::4].float(), torch.tensor(0.0)).to(dtype)
    v[2::4] = -torch.nextafter(v[2::4].float(), torch.tensor(1e38)).to(dtype)
    v[3::8], v[7::16], v[15::16] = 0.0, limits.max, -limits.smallest_normal / 4
    expected = (u * threshold < v.double().abs()).nonzero().squeeze(1)
    assert 0 < len(expected) < n
    assert torch.equal(drawn_in_proportion(v, threshold, key), expected)
    disable_numba()
    assert torch.equal(drawn_in_proportion(v, threshold, key), expected)


@pytest.mark.parametrize("threshold", [2.0**127, 1e300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_draws_from_the_largest_numbers_are_those_of_the_definition(dtype, threshold):
    key = Key(8)
    v = (key.uniform(5000, start=5000) * min(threshold, 3e38 if dtype == torch.float32 else threshold)).to(dtype)
    expected = (key.uniform(5000) * threshold < v.double()).nonzero().squeeze(1)
    assert torch.equal(drawn_in_proportion(v, threshold, key), expected)


@pytest.mark.parametrize("n", [1, 63, 64, 136])
def test_normals_are_those_of_the_key(n):
    key = Key(5).fold(block=3)
    assert torch.equal(normals(key, n), key.normal(n))
