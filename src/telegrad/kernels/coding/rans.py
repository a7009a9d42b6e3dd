"""Interleaved rANS: an entropy coder for symbol streams with known frequencies.

J. Duda, "Asymmetric numeral systems", 2013; interleaving after F. Giesen, 2014. Symbol i belongs to lane i mod W, each
lane a 32-bit state in [2^16, 2^32) that gives and takes 16-bit words. Frequencies are integers that add up to 2^bits.
All lanes share one stream of words, in the order in which the decoder wants them. Length: the cross entropy, plus 32
bits a lane. Where the law of a symbol depends on what both ends know, its context, each context has frequencies of its
own: symbol s of context c is row c, column s of one table, and counts as symbol c K + s.

Long streams are cut into pieces of 2^18 symbols, each coded by itself, so that threads can share them. The encoder
divides by multiplying: with r = ⌈2^(32+bits) / f⌉ and x < 2^(32−bits) f, ⌊x / f⌋ is exactly x r >> 32 + bits, and x r
stays below 2^64. The decoder looks a slot's symbol up in a table of all slots, or goes on from a first guess.

The loops are numba's where it is installed; else the numpy form below them, vectorised over lanes, gives the same
words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from telegrad.kernels.compilation import Loop
from telegrad.kernels.threads import in_chunks

__all__ = [
    *("LOWEST", "PIECE", "ContextDecoder", "Decoder", "Encoder"),
    *("found_symbol", "lanes_of", "refill", "refilled", "state_count"),
]

LOWEST = 1 << 16
"""The state every lane starts from when encoding, and so ends at when decoding."""

PIECE = 1 << 18
"""Symbols that are coded together, at most."""

_1, _16, _32 = np.uint64(1), np.uint64(16), np.uint64(32)
_LOW, _LOWEST = np.uint64(0xFFFF), np.uint64(LOWEST)


def lanes_of(n: int) -> int:
    """How many lanes a piece of n symbols has: more are faster, and each costs about 24 bits. A power of two."""
    return 4 if n < 1 << 16 else 8


def state_count(n: int) -> int:
    """The states in all pieces of n symbols."""
    return n // PIECE * lanes_of(PIECE) + lanes_of(n % PIECE) * (n % PIECE > 0)


def _encode_scalar(symbols: Any, table: Any, bits: int, states: Any, words: Any) -> Any:
    # Unsigned places: a signed one costs a test for whether it counts from the end.
    at: Any = np.uint64(len(words))
    mask, shift = np.uint64(len(states) - 1), np.uint64(bits) + _32
    for i in range(len(symbols) - 1, -1, -1):
        s, lane = np.uint64(symbols[i]), np.uint64(i) & mask
        x = states[lane]
        full = x >= table[s, 0]
        # Written in any case, kept where the state was full: no branch to mispredict.
        words[at - _1] = np.uint16(x & _LOW)
        at -= np.uint64(full)
        x = x >> (_16 if full else np.uint64(0))
        states[lane] = x + table[s, 1] + (x * table[s, 2] >> shift) * table[s, 3]
    return at


def _encode_rows(symbols: Any, table: Any, bits: int, states: Any, words: Any) -> int:
    lanes, at, shift = len(states), len(words), np.uint64(bits + 32)
    for first in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
        limit, start, reciprocal, rest = table[symbols[first : first + lanes].astype(np.int64)].T
        x = states[: len(limit)]
        full = x >= limit
        emitted = x[full] & _LOW
        words[at - len(emitted) : at] = emitted
        at -= len(emitted)
        x = np.where(full, x >> _16, x)
        states[: len(limit)] = x + start + (x * reciprocal >> shift) * rest
    return at


def refilled(x: Any, word: Any) -> Any:
    """A lane's state, with the next word taken in where it is short. The word is read in any case, and used where it
    is wanted: no branch to mispredict.
    """
    return x << _16 | np.uint64(word) if x < _LOWEST else x


def refill(x: np.ndarray, words: np.ndarray, at: int) -> int:
    """`refilled` of neighbouring lanes, in place, from word `at` on: the first word that is left, −1 where they do not
    suffice.
    """
    short = x < _LOWEST
    taken = words[at : at + int(short.sum())]
    if len(taken) < short.sum():
        return -1
    x[short] = x[short] << _16 | taken
    return at + len(taken)


def _decode_scalar(words: Any, states: Any, symbol_of: Any, table: Any, bits: int, symbols: Any) -> int:
    # Unsigned throughout: an index that may be negative costs compiled code a comparison.
    at = np.uint64(0)
    lanes, last = len(states), np.uint64(len(words) - len(states))
    wide, mask = np.uint64(bits), np.uint64((1 << bits) - 1)
    for first in range(0, len(symbols), lanes):
        if at > last:
            return -1
        for lane in range(min(lanes, len(symbols) - first)):
            i, x = np.uint64(first + lane), states[np.uint64(lane)]
            slot = x & mask
            symbol = symbol_of[slot]
            entry = table[np.uint64(symbol)]
            x = (entry >> _16) * (x >> wide) + slot - (entry & _LOW)
            states[np.uint64(lane)] = refilled(x, words[at])
            at += np.uint64(x < _LOWEST)
            symbols[i] = symbol
    return np.int64(at)  # type: ignore[return-value]


def found_symbol(slot: Any, symbol: Any, at: Any, starts: Any) -> Any:
    """The symbol of a slot, from a guess on: the last that starts at or before it; its row begins at `at`."""
    while slot >= starts[at + symbol + _1]:
        symbol += _1
    return symbol


def _decode_given_scalar(
    words: Any, states: Any, guess: Any, starts: Any, contexts: Any, bits: int, symbols: Any
) -> int:
    at = np.uint64(0)
    lanes, last, columns = len(states), np.uint64(len(words) - len(states)), np.uint64(starts.shape[1])
    wide, mask = np.uint64(bits), np.uint64((1 << bits) - 1)
    low, few, first_guess, flat = np.uint64(bits - 8), np.uint64(8), guess.reshape(-1), starts.reshape(-1)
    for first in range(0, len(symbols), lanes):
        if at > last:
            return -1
        for lane in range(min(lanes, len(symbols) - first)):
            i, x = np.uint64(first + lane), states[np.uint64(lane)]
            row, slot = np.uint64(contexts[i]), x & mask
            begin = row * columns
            symbol = found_symbol(slot, np.uint64(first_guess[(row << few) + (slot >> low)]), begin, flat)
            start = flat[begin + symbol]
            x = (flat[begin + symbol + _1] - start) * (x >> wide) + slot - start
            states[np.uint64(lane)] = refilled(x, words[at])
            at += np.uint64(x < _LOWEST)
            symbols[i] = symbol
    return np.int64(at)  # type: ignore[return-value]


def _decode_rows(
    words: np.ndarray, states: np.ndarray, symbol_of: np.ndarray, table: np.ndarray, bits: int, symbols: np.ndarray
) -> int:
    of_slot = table[symbol_of]

    def known(_: int, slot: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return symbol_of[slot], of_slot[slot] >> _16, slot - (of_slot[slot] & _LOW)

    return _decode_by(words, states, known, bits, symbols)


def _decode_given_rows(
    words: np.ndarray,
    states: np.ndarray,
    guess: np.ndarray,
    starts: np.ndarray,
    contexts: np.ndarray,
    bits: int,
    symbols: np.ndarray,
) -> int:
    width = np.diff(starts)

    def known(first: int, slot: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        row = contexts[first : first + len(slot)].astype(np.int64)
        symbol = (starts[row, 1:] <= slot[:, None]).sum(1)
        return symbol, width[row, symbol], slot - starts[row, symbol]

    return _decode_by(words, states, known, bits, symbols)


def _decode_by(
    words: np.ndarray,
    states: np.ndarray,
    known: Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]],
    bits: int,
    symbols: np.ndarray,
) -> int:
    """By what is known of the slots of neighbours: their symbols, the frequencies of these, and the slots' places in
    them.
    """
    lanes, at, wide = len(states), 0, np.uint64(bits)
    for first in range(0, len(symbols), lanes):
        x = states[: min(lanes, len(symbols) - first)]
        symbol, frequency, place = known(first, x & np.uint64((1 << bits) - 1))
        x = frequency * (x >> wide) + place
        at = refill(x, words, at)
        if at < 0:
            return -1
        states[: len(x)] = x
        symbols[first : first + lanes] = symbol
    return at


_encode = Loop(_encode_scalar, _encode_rows)
_decode = Loop(_decode_scalar, _decode_rows, uses=[refilled])
_decode_given = Loop(_decode_given_scalar, _decode_given_rows, uses=[found_symbol, refilled])


class Encoder:
    """Codes symbols of frequencies that are known at both ends.

    `frequency`: int64, shape (K,), adding up to 2^bits, bits <= 16; or (C, K), every row like that.
    """

    def __init__(self, frequency: np.ndarray, bits: int) -> None:
        self.bits = bits
        flat, starts = frequency.reshape(-1), (np.cumsum(frequency, axis=-1) - frequency).reshape(-1)
        divisor = np.maximum(flat, 1)
        reciprocal = ((1 << 32 + bits) + divisor - 1) // divisor
        self._table = np.empty((len(flat), 4), dtype=np.uint64)
        for column, entries in enumerate((flat << 32 - bits, starts, reciprocal, (1 << bits) - flat)):
            self._table[:, column] = entries.astype(np.uint64)

    def piece(self, symbols: np.ndarray, lanes: Callable[[int], int] = lanes_of) -> tuple[np.ndarray, np.ndarray]:
        """(states, words), uint32 of shape (lanes,) and uint16, for up to 2^18 integers, each of positive frequency
        (row c, column s as c K + s). `lanes`: how many for so many symbols.
        """
        states = np.full(lanes(len(symbols)), LOWEST, dtype=np.uint64)
        words = np.empty(len(symbols) + 1, dtype=np.uint16)
        at = _encode(symbols, self._table, self.bits, states, words)
        return states.astype(np.uint32), words[at:].copy()  # the room itself is far larger

    def pieces(
        self, symbols: Callable[[int, int], np.ndarray], n: int, lanes: Callable[[int], int] = lanes_of
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Every piece of n symbols by all threads; `symbols(start, stop)` makes those of one piece."""

        def work(_: int, start: int, stop: int) -> list[tuple[np.ndarray, np.ndarray]]:
            return [self.piece(symbols(at, min(stop, at + PIECE)), lanes) for at in range(start, stop, PIECE)]

        return [piece for part in in_chunks(work, n, PIECE) for piece in part]


class Decoder:
    """The inverse of `Encoder`, for the same frequencies; of several rows only the tables of all slots."""

    def __init__(self, frequency: np.ndarray, bits: int) -> None:
        self.bits = bits
        rows = np.atleast_2d(frequency)
        symbols = np.arange(rows.shape[1], dtype=np.uint8 if rows.shape[1] <= 256 else np.uint16)
        self.symbol_of = np.tile(symbols, len(rows)).repeat(rows.reshape(-1))
        starts = np.cumsum(rows, axis=1) - rows
        self.table = (rows << 16 | starts).astype(np.uint64).reshape(-1)

    def piece(self, states: np.ndarray, words: np.ndarray, symbols: np.ndarray) -> bool:
        """Fill `symbols`, integers. False where these are not an encoder's work."""
        x, padded = states.astype(np.uint64), np.append(words, np.zeros(len(states), dtype=np.uint16))
        at = _decode(padded, x, self.symbol_of, self.table, self.bits, symbols)
        return at == len(words) and bool((x == _LOWEST).all())


class ContextDecoder:
    """The inverse of an `Encoder` of several rows. A table of all slots of all rows would be larger than caches are:
    here each row has 256 first guesses, from which the symbol is a few steps upward.
    """

    def __init__(self, frequency: np.ndarray, bits: int) -> None:
        self.bits, rows = bits, np.arange(len(frequency))[:, None]
        self.starts = np.zeros((len(frequency), frequency.shape[1] + 1), dtype=np.uint64)
        self.starts[:, 1:] = np.cumsum(frequency, axis=1)
        # The last symbol that starts at or before the first slot of each guess: as many as end at or before it.
        width = 1 << (bits - 8)
        first = (self.starts[:, 1:].astype(np.int64) + (width - 1)) // width  # guess at or behind each end
        ending = np.bincount((first + 257 * rows).reshape(-1), minlength=257 * len(rows)).reshape(-1, 257)
        self.guess = np.cumsum(ending[:, :256], axis=1).astype(np.uint16)

    def piece(self, states: np.ndarray, words: np.ndarray, symbols: np.ndarray, contexts: np.ndarray) -> bool:
        """Fill `symbols`, integers; `contexts`: the row of each. False where these are not an encoder's work."""
        x, padded = states.astype(np.uint64), np.append(words, np.zeros(len(states), dtype=np.uint16))
        at = _decode_given(padded, x, self.guess, self.starts, contexts, self.bits, symbols)
        return at == len(words) and bool((x == _LOWEST).all())
