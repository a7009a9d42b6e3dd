"""Interleaved rANS: an entropy coder for symbol streams with known frequencies.

J. Duda, "Asymmetric numeral systems", 2013; interleaving after F. Giesen, 2014. Symbol i belongs to lane i mod W, each
lane a 32-bit state in [2^16, 2^32) that gives and takes 16-bit words. Frequencies are integers that add up to 2^bits.
All lanes share one stream of words, in the order in which the decoder wants them. Length: the cross entropy, plus 32
bits a lane. Where the law of a symbol depends on what both ends know, its context, each context has frequencies of its
own: symbol s of context c is row c, column s of one table, and counts as symbol c K + s.

The loops are numba's where it is installed; else the numpy form below them, vectorised over lanes, gives the same
words.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from telegrad.kernels.compiled import Loop

__all__ = ["LOWEST", "rans_decode", "rans_encode"]

LOWEST = 1 << 16
"""The state every lane starts from when encoding, and so ends at when decoding."""


def _encode_scalar(symbols: Any, frequency: Any, start: Any, bits: int, states: Any, words: Any) -> int:
    lanes, at = len(states), len(words)
    for i in range(len(symbols) - 1, -1, -1):
        lane, f = i % lanes, frequency[symbols[i]]
        x = states[lane]
        if x >= f << np.uint64(32 - bits):
            at -= 1
            words[at] = x & np.uint64(0xFFFF)
            x >>= np.uint64(16)
        states[lane] = ((x // f) << np.uint64(bits)) + x % f + start[symbols[i]]
    return at


def _decode_scalar(
    words: Any, states: Any, frequency: Any, start: Any, lookup: Any, row: Any, bits: int, symbols: Any
) -> int:
    lanes, at, mask = len(states), 0, np.uint64((1 << bits) - 1)
    for i in range(len(symbols)):
        lane = i % lanes
        x = states[lane]
        slot = x & mask
        s = lookup[row[i], slot]
        x = frequency[s] * (x >> np.uint64(bits)) + slot - start[s]
        if x < np.uint64(65536):
            if at == len(words):
                return -1
            x = x << np.uint64(16) | np.uint64(words[at])
            at += 1
        states[lane] = x
        symbols[i] = s
    return at


def _encode_rows(symbols: Any, frequency: Any, start: Any, bits: int, states: Any, words: Any) -> int:
    lanes, at = len(states), len(words)
    for first in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
        row = symbols[first : first + lanes]
        x, f = states[: len(row)], frequency[row]
        full = x >= f << np.uint64(32 - bits)
        emitted = x[full] & np.uint64(0xFFFF)
        words[at - len(emitted) : at] = emitted
        at -= len(emitted)
        x = np.where(full, x >> np.uint64(16), x)
        states[: len(row)] = ((x // f) << np.uint64(bits)) + x % f + start[row]
    return at


def _decode_rows(
    words: Any, states: Any, frequency: Any, start: Any, lookup: Any, row: Any, bits: int, symbols: Any
) -> int:
    lanes, at, mask = len(states), 0, np.uint64((1 << bits) - 1)
    for first in range(0, len(symbols), lanes):
        x = states[: min(lanes, len(symbols) - first)]
        slot = x & mask
        s = lookup[row[first : first + lanes], slot]
        x = frequency[s] * (x >> np.uint64(bits)) + slot - start[s]
        low = x < np.uint64(LOWEST)
        taken = words[at : at + int(low.sum())]
        if len(taken) < low.sum():
            return -1
        x[low] = x[low] << np.uint64(16) | taken
        at += len(taken)
        states[: len(x)] = x
        symbols[first : first + lanes] = s
    return at


_encode = Loop(_encode_scalar, _encode_rows)
_decode = Loop(_decode_scalar, _decode_rows)


def _starts(frequency: np.ndarray) -> np.ndarray:
    return (np.cumsum(frequency, axis=-1) - frequency).astype(np.uint64).reshape(-1)


def rans_encode(
    symbols: np.ndarray, frequency: np.ndarray, bits: int, lanes: int, contexts: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(states, words): uint32 of shape (lanes,) and uint16, for `symbols` (int64, each of positive frequency).

    `frequency`: int64, shape (K,), adding up to 2^bits, bits <= 16; or (C, K), every row like that, with the symbols'
    `contexts` among 0 … C−1, int64.
    """
    if contexts is not None:
        symbols = contexts * frequency.shape[-1] + symbols
    states = np.full(lanes, LOWEST, dtype=np.uint64)
    words = np.empty(len(symbols), dtype=np.uint16)
    at = _encode(symbols, frequency.astype(np.uint64).reshape(-1), _starts(frequency), bits, states, words)
    return states.astype(np.uint32), words[at:]


def rans_decode(
    words: np.ndarray,
    states: np.ndarray,
    n: int,
    frequency: np.ndarray,
    bits: int,
    contexts: np.ndarray | None = None,
) -> np.ndarray | None:
    """The n symbols, int64, that `rans_encode` made `words` and `states` of; None where these are not its work."""
    flat = frequency.reshape(-1)
    lookup = np.repeat(np.arange(len(flat)), flat).reshape(-1, 1 << bits)
    row = np.broadcast_to(np.int64(0), n) if contexts is None else contexts
    symbols, x = np.empty(n, dtype=np.int64), states.astype(np.uint64)
    at = _decode(words, x, flat.astype(np.uint64), _starts(frequency), lookup, row, bits, symbols)
    if contexts is not None:
        symbols -= contexts * frequency.shape[-1]
    return symbols if at == len(words) and bool((x == LOWEST).all()) else None
