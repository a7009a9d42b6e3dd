"""Entropy coding where the law of a symbol depends on its context."""

import numpy as np
import pytest

from telegrad.kernels.coding.rans import ContextDecoder, Encoder


def sample(n, seed=0):
    generator = np.random.default_rng(seed)
    frequency = np.array([[4000, 90, 6], [1, 4094, 1], [1365, 1366, 1365], [4094, 1, 1]])
    contexts = generator.integers(0, 4, n)
    shares = frequency[contexts].cumsum(1) / 4096
    return (generator.random((n, 1)) >= shares).sum(1), contexts, frequency


def coded(symbols, contexts, frequency):
    return Encoder(frequency, 12).piece(contexts * 3 + symbols)


def decoded(states, words, n, contexts, frequency):
    out = np.empty(n, dtype=np.uint8)
    return out if ContextDecoder(frequency, 12).piece(states, words, out, contexts) else None


@pytest.mark.parametrize("n", [1, 5, 1000, 70_001])
def test_symbols_in_contexts_come_back_at_their_cross_entropy(n):
    symbols, contexts, frequency = sample(n)
    states, words = coded(symbols, contexts, frequency)
    assert np.array_equal(decoded(states, words, n, contexts, frequency), symbols)
    ideal = -np.log2(frequency[contexts, symbols] / 4096).sum()
    assert 16 * len(words) <= 1.005 * ideal + 8 * 16
    if n >= 1000:
        assert decoded(states, words, n, (contexts + 1) % 4, frequency) is None


@pytest.mark.parametrize("n", [999, 70_001])
def test_the_numpy_form_gives_the_same_words(n, disable_numba):
    symbols, contexts, frequency = sample(n)
    states, words = coded(symbols, contexts, frequency)
    disable_numba()
    plain = coded(symbols, contexts, frequency)
    assert np.array_equal(plain[0], states)
    assert np.array_equal(plain[1], words)
    assert np.array_equal(decoded(states, words, n, contexts, frequency), symbols)


@pytest.mark.parametrize("bits", [1, 10, 15, 16])
def test_dividing_by_multiplying_is_exact(bits):
    """At the ends of what a state can be, for every frequency (every 17th at 16 bits)."""
    frequency = np.arange(1, 1 << bits, 17 if bits == 16 else 1)
    table = Encoder(np.stack([frequency, (1 << bits) - frequency], axis=1), bits)._table[::2]
    top = (frequency.astype(np.uint64) << np.uint64(32 - bits)) - np.uint64(1)
    for x in (top, top - top % frequency.astype(np.uint64), top - top % frequency.astype(np.uint64) - np.uint64(1)):
        assert np.array_equal(x * table[:, 2] >> np.uint64(32 + bits), x // frequency.astype(np.uint64))
