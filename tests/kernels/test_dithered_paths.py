"""Dithered trellis paths: both forms of every loop give the same symbols, rows, numbers and messages."""

import numpy as np
import pytest
import torch

import telegrad as tg
from telegrad.kernels.trellis.dithered_paths import dithered_paths
from telegrad.kernels.trellis.followed_paths import path_rows, undithered_path

SEED = 2026


def symbols_of(n, step, states):
    return dithered_paths(torch.randn(n, generator=torch.Generator().manual_seed(n)), step, SEED, states).numpy()


@pytest.mark.parametrize("states", [8, 256])
@pytest.mark.parametrize("n", [1, 300, 70_001])
@pytest.mark.parametrize("step", [0.02, 2.0])
def test_paths_and_what_they_tell_are_the_same_in_both_forms(n, step, states, disable_numba):
    symbols = symbols_of(n, step, states)
    rows, numbers = path_rows(symbols, 400, SEED, 0, states), np.empty(n)
    undithered_path(symbols, step, SEED, 0, states, numbers)
    disable_numba()
    assert np.array_equal(symbols_of(n, step, states), symbols)
    assert np.array_equal(path_rows(symbols, 400, SEED, 0, states), rows)
    again = np.empty(n)
    undithered_path(symbols, step, SEED, 0, states, again)
    assert np.array_equal(again, numbers)


@pytest.mark.parametrize("bits", [0.3, 2.0, 9.0])
@pytest.mark.parametrize("n", [300, 70_001])
def test_messages_are_read_the_same_in_both_forms(n, bits, disable_numba):
    v = torch.randn(n, generator=torch.Generator().manual_seed(n))
    spec = f"ecdq(bits={bits}, coder=trellis)"
    message = tg.pack(tg.compressor(spec).encode(v, tg.Key(seed=1)))
    read = tg.unpack(message).decode()
    disable_numba()
    assert tg.pack(tg.compressor(spec).encode(v, tg.Key(seed=1))) == message
    assert torch.equal(tg.unpack(message).decode(), read)
