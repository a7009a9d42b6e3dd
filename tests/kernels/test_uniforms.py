"""The stream of a key in compiled loops: the numbers of Key.uniform, on every number of threads."""

import pytest
import torch

from telegrad.kernels.uniforms import uniforms
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
