"""Streams of small integers under an entropy code: interleaved rANS, with a table of the integers' frequencies."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from telegrad.errors import WireError
from telegrad.kernels.coding.rans import PIECE, Decoder, Encoder, lanes_of
from telegrad.kernels.coding.symbols import counted, folded, joined, parted
from telegrad.kernels.threads import in_chunks
from telegrad.wire.bits import Reader, pack_fixed, pack_varied, pack_varint, unpack_fixed, unpack_varied

__all__ = [
    "ALPHABET",
    "check_pieces",
    "coded_bits",
    "entropy_bits",
    "pack_entropy",
    "pack_pieces",
    "table_bits",
    "unpack_entropy",
    "unpack_pieces",
]

ALPHABET = 4096
"""Only integers below this are entropy coded one by one."""
_FREQUENCY_WIDTH = 5
_GROUPED = 256
_CODER_BITS = 152


def entropy_bits(counts: np.ndarray) -> float:
    """n · H, the empirical entropy in bits of a whole stream whose symbols occur `counts` times."""
    present = counts[counts > 0].astype(np.float64)
    return float(-(present * np.log2(present / present.sum())).sum()) if len(present) else 0.0


def table_bits(top: float) -> float:
    """About the bits of the frequencies of integers up to `top`, one by one or in buckets: eight each."""
    return 8 * min(top, 8 + 4 * math.log2(max(top / 8, 1.0)))


def _precision(n: int, alphabet: int) -> int:
    """Bits of the frequencies: fine enough for the stream's length and to give every symbol one."""
    return min(15, max(10, n.bit_length() - 3, alphabet.bit_length() + 1))


def coded_bits(counts: np.ndarray) -> float:
    """About the length of the entropy-coded stream whose integers occur `counts` times, with its table and states."""
    entropy, total = entropy_bits(counts), float(counts.sum())
    used = counts[counts > 0] * (2.0 ** _precision(int(total), len(counts)) / total)
    return entropy + _FREQUENCY_WIDTH * len(counts) + float(np.log2(np.maximum(used, 1.0)).sum()) + _CODER_BITS


def _quantised(counts: np.ndarray, bits: int) -> np.ndarray:
    """Frequencies that add up to 2^bits, at least 1 where the count is, close to the counts' shares."""
    total, goal = int(counts.sum()), 1 << bits
    frequency = np.where(counts > 0, np.maximum(1, counts * goal // total), 0)
    # What rounding leaves over goes to the commonest symbols, which lose least by it; a deficit is taken from them.
    for symbol in np.argsort(-counts, kind="stable"):
        change = max(goal - int(frequency.sum()), 1 - int(frequency[symbol]))
        if change == 0:
            break
        frequency[symbol] += change
    return frequency


def pack_entropy(values: np.ndarray, counts: np.ndarray) -> bytes:
    """Integers that occur `counts` times as a table and an entropy-coded stream; signed ones as `folded` makes them."""
    alphabet, group = len(counts), 1
    # Several symbols as one, where the larger table of frequencies is nothing beside the stream: fewer steps.
    while alphabet * len(counts) <= _GROUPED and alphabet * len(counts) * 13 <= 0.005 * entropy_bits(counts):
        alphabet, group = alphabet * len(counts), group + 1
    if group > 1:
        values = joined(values, len(counts), group)
    frequencies = counts if group == 1 else counted(values, _GROUPED)
    assert frequencies is not None
    bits = _precision(len(values), len(frequencies))
    frequency = _quantised(frequencies, bits)
    # Each frequency as its length in bits and, where that exceeds one, the bits below the leading one.
    lengths = np.frexp(frequency.astype(np.float64))[1].astype(np.int64)
    out = bytes([bits, group]) + pack_varint(len(counts)) + pack_varint(len(frequency))
    out += pack_fixed(lengths, _FREQUENCY_WIDTH) + pack_varied(frequency, np.maximum(lengths - 1, 0))
    if values.dtype in (np.int8, np.int16):
        pieces = Encoder(frequency, bits).pieces(lambda start, stop: folded(values[start:stop]), len(values))
    else:
        pieces = Encoder(frequency, bits).pieces(lambda start, stop: values[start:stop], len(values))
    return pack_pieces(pieces, out)


def pack_pieces(pieces: list[tuple[np.ndarray, np.ndarray]], head: bytes = b"") -> bytes:
    """`head`, then the states of every piece, the number of its words, and they."""
    parts: list[Any] = [head]
    for states, words in pieces:
        parts += [states.astype("<u4").tobytes(), pack_varint(len(words)), words.astype("<u2", copy=False).data]
    return b"".join(parts)


def check_pieces(reader: Reader, n: int, lanes: Callable[[int], int] = lanes_of) -> None:
    """Raise `WireError` where not even the coder's states of n symbols are left to read: before room is made for them.

    A symbol takes a word from the stream only now and then, and one that is certain none at all.
    """
    states = n // PIECE * lanes(PIECE) + lanes(n % PIECE) * (n % PIECE > 0)
    if 4 * states + -(-n // PIECE) > reader.left:
        raise WireError(f"{n} symbols are announced, and {reader.left} bytes are not enough for them")


def unpack_pieces(
    reader: Reader,
    n: int,
    decode: Callable[[int, int, np.ndarray, np.ndarray], bool],
    lanes: Callable[[int], int] = lanes_of,
) -> None:
    """Read the pieces of n symbols and have each decoded: decode(start, stop, states, words) says whether it could."""
    pieces = []
    for start in range(0, n, PIECE):
        states = np.frombuffer(reader.take(4 * lanes(min(n - start, PIECE))), "<u4")
        pieces.append((states, np.frombuffer(reader.take(2 * reader.varint()), "<u2")))
    done = in_chunks(
        lambda _, low, high: all(
            decode(start, min(high, start + PIECE), *pieces[start // PIECE]) for start in range(low, high, PIECE)
        ),
        n,
        PIECE,
    )
    if not all(done):
        raise WireError("an entropy-coded stream does not end where it should")


def unpack_entropy(reader: Reader, n: int) -> np.ndarray:
    """The n integers that `pack_entropy` wrote, in the smaller of uint8 and uint16 that holds them."""
    bits, group, single, alphabet = reader.byte(), reader.byte(), reader.varint(), reader.varint()
    # The table that takes groups apart has rows for integers below _GROUPED; an encoder makes no larger ones.
    together = single**group if 1 <= group <= 8 else 0
    if not 1 <= bits <= 15 or alphabet > together or together > (ALPHABET if group == 1 else _GROUPED):
        raise WireError(f"an entropy-coded stream of {alphabet} symbols with {bits}-bit frequencies is not ours")
    lengths = unpack_fixed(reader, alphabet, _FREQUENCY_WIDTH).astype(np.int64)
    frequency = (1 << lengths) >> 1 | unpack_varied(reader, np.maximum(lengths - 1, 0))
    if int(frequency.sum()) != 1 << bits:
        raise WireError("the frequencies of an entropy-coded stream do not add up")
    steps, decoder = -(-n // group), Decoder(frequency, bits)
    check_pieces(reader, steps)
    values = np.empty(steps, dtype=np.uint8 if alphabet <= 256 else np.uint16)
    unpack_pieces(reader, steps, lambda start, stop, states, words: decoder.piece(states, words, values[start:stop]))
    return values if group == 1 else parted(values, single, group, n)
