"""Entropy coding where the law of a symbol depends on its context."""

import numpy as np
import pytest

from telegrad.kernels.rans import rans_decode, rans_encode


def sample(n, seed=0):
    generator = np.random.default_rng(seed)
    frequency = np.array([[4000, 90, 6], [1, 4094, 1], [1365, 1366, 1365], [4094, 1, 1]])
    contexts = generator.integers(0, 4, n)
    shares = frequency[contexts].cumsum(1) / 4096
    return (generator.random((n, 1)) >= shares).sum(1), contexts, frequency


@pytest.mark.parametrize("n", [0, 1, 5, 1000, 50_001])
def test_symbols_in_contexts_come_back_at_their_cross_entropy(n):
    symbols, contexts, frequency = sample(n)
    states, words = rans_encode(symbols, frequency, 12, 4, contexts)
    assert np.array_equal(rans_decode(words, states, n, frequency, 12, contexts), symbols)
    ideal = -np.log2(frequency[contexts, symbols] / 4096).sum()
    assert 16 * len(words) <= 1.005 * ideal + 8 * 16
    if n >= 1000:
        assert rans_decode(words, states, n, frequency, 12, (contexts + 1) % 4) is None


def test_the_numpy_form_gives_the_same_words(disable_numba):
    symbols, contexts, frequency = sample(999)
    states, words = rans_encode(symbols, frequency, 12, 4, contexts)
    disable_numba()
    plain = rans_encode(symbols, frequency, 12, 4, contexts)
    assert np.array_equal(plain[0], states)
    assert np.array_equal(plain[1], words)
    assert np.array_equal(rans_decode(words, states, 999, frequency, 12, contexts), symbols)
