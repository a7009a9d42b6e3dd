"""The random rotations of A21: transform, blocks, inverse, and how uniform they are."""

import math

import pytest
import torch

from telegrad.kernels.rotation.blocks import block_sizes
from telegrad.kernels.rotation.hadamard import rotate, rotate_back, rotated_at
from telegrad.kernels.rotation.transform import transformed


def sylvester(n):
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < n:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / math.sqrt(n)


@pytest.mark.parametrize(("high", "low"), [(8, 8), (16, 8), (8, 16), (32, 32)])
def test_the_transform_is_sylvesters_matrix_transposed(high, low):
    n = high * low
    x = torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    expected = (sylvester(n) @ x * math.sqrt(n)).view(high, low).t().reshape(-1)
    done = transformed(x.numpy(), high, low)
    assert torch.allclose(torch.from_numpy(done), expected, atol=1e-12)
    assert torch.allclose(torch.from_numpy(transformed(done, low, high)) / n, x, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [7, 100, 5001, 65536 + 64 + 5, 131_072 + 65_000])
def test_rotations_are_the_same_to_the_bit_for_all_threads_and_forms(n, dtype, disable_numba, threads):
    v = torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=dtype) * 1e-30
    threads(2)
    y = rotate(v, 3)
    back = rotate_back(y, 3)
    assert torch.allclose(back.double(), v.double(), rtol=0, atol=1e-35 if dtype == torch.float32 else 1e-43)
    threads(1)
    assert torch.equal(rotate(v, 3), y)
    disable_numba()
    assert torch.equal(rotate(v, 3), y)
    assert torch.equal(rotate_back(y, 3), back)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("n", [1, 7, 5001, 131_072 + 65_000])
def test_entries_taken_block_by_block_are_those_of_the_whole_rotation(n, dtype, disable_numba, threads):
    v = torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64).to(dtype)
    whole = rotate(v.double(), 3)
    for places in (torch.arange(n), torch.arange(0, n, 7919), torch.arange(n - 1, n), torch.arange(0)):
        for count in (1, 2):
            threads(count)
            assert torch.equal(rotated_at(v, 3, places), whole[places])
    disable_numba()
    assert torch.equal(rotated_at(v, 3, torch.arange(0, n, 11)), whole[::11])


def test_blocks_are_the_binary_expansion_and_one_short_end():
    assert block_sizes(100_000) == [65536, 32768, 1024, 512, 128, 32]  # A21
    assert block_sizes(200_000) == [65536] * 3 + [2048, 1024, 256, 64]
    assert block_sizes(63) == [63]
    assert block_sizes(0) == []
    assert all(sum(block_sizes(n)) == n for n in range(3000))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 63, 64, 65, 1000, 5001, 131_072 + 77])
def test_rotations_keep_lengths_and_are_undone(n):
    v = torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    y = rotate(v, 2**64 - 1)
    assert float(y.norm()) == pytest.approx(float(v.norm()), rel=1e-12)
    assert torch.allclose(rotate_back(y, 2**64 - 1), v, atol=1e-12)
    if n > 1:
        assert not torch.allclose(y, rotate(v, 5))


@pytest.mark.parametrize("n", [2, 6])
def test_short_rotations_are_uniform(n):
    """Every entry of Q has mean 0, second moment 1/n and fourth 3/(n(n+2)); 2000 draws, z = 5 (level 6e-7 each)."""
    columns = torch.eye(n, dtype=torch.float64)
    draws = torch.stack([torch.stack([rotate(column, seed) for column in columns]) for seed in range(2000)])
    for power, moment in ((1, 0.0), (2, 1 / n), (4, 3 / (n * (n + 2)))):
        sample = draws**power
        assert bool(((sample.mean(0) - moment).abs() <= 5 * sample.std(0) / math.sqrt(2000)).all())
    # A rotation without reflections would fix the direction of nothing in two dimensions.
    assert 0.4 < float((torch.linalg.det(draws) > 0).double().mean()) < 0.6


@pytest.mark.parametrize("n", [64, 4096])
def test_a_rotated_unit_vector_looks_gaussian(n):
    """The kurtosis of √n · y is that of the sphere, 3n/(n+2), for one-hot and two-hot vectors; 5 standard errors."""
    for entries in ((1.0,), (1.01, 1.0)):
        v = torch.zeros(n, dtype=torch.float64)
        v[: len(entries)] = torch.tensor(entries)
        v /= v.norm()
        fourth = torch.stack([(rotate(v, seed).double() ** 4).sum() * n for seed in range(400)])
        assert abs(float(fourth.mean()) - 3 * n / (n + 2)) <= 5 * float(fourth.std()) / 20
