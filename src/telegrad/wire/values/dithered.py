"""Dithered symbols: both ends know the dither, and the symbols are coded given it (A26)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.coding.rans import ContextDecoder, Encoder
from telegrad.kernels.memory import add_in_pieces, adds_in_pieces, room
from telegrad.kernels.quantising.dither_frequencies import (
    FURTHEST,
    LAST_BUCKET,
    SINGLE,
    bucket_of,
    counted,
    frequencies,
    shortest_bits,
    symbol_of,
    tail_width,
)
from telegrad.kernels.quantising.dithered_rounding import (
    contexts_at,
    far_magnitudes,
    rows_at,
    signed_symbols,
    undithered,
    write_undithered,
)
from telegrad.kernels.threads import kept
from telegrad.random import Key
from telegrad.wire.bits import SCALARS, Buffer, Reader, pack_bits, read_seed, seed_parts
from telegrad.wire.integers import Integers, check_pieces, pack_pieces, unpack_pieces
from telegrad.wire.values.base import Sizes, Values, largest_of, round_scalar

__all__ = ["Dithered"]

_MOST_COUNTS = 120
_PIECE = 65408  # entries that the cache holds


@dataclass(frozen=True)
class Dithered(Values):
    """step · (symbol − dither). `seed`: of the dither. `ratio` and `counts`: the law of the entries, see kernels."""

    tag: ClassVar[int] = 8
    symbol: Tensor = field(repr=False)
    seed: int
    step: float
    ratio: float
    counts: np.ndarray = field(repr=False)

    @property
    def n(self) -> int:
        return len(self.symbol)

    def numbers(self) -> Tensor:
        return undithered(self.symbol, self.step, self.seed, torch.float64)

    def numbers_as(self, dtype: torch.dtype) -> Tensor:
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return undithered(self.symbol, self.step, self.seed, wide).to(dtype)

    def add_to(self, out: Tensor, weight: float) -> None:
        if not adds_in_pieces(out):
            super().add_to(out, weight)
            return
        symbol = self.symbol.cpu().numpy()

        def make(low: int, high: int, room: np.ndarray) -> None:
            write_undithered(symbol[low:high], self.step, self.seed, low, room)

        add_in_pieces(out, weight, self.n, _PIECE, make)

    def largest(self) -> float:
        return (self._most + 0.5) * abs(self.step)

    @kept
    def _most(self) -> float:
        return largest_of(self.symbol)

    def scaled(self, factor: float) -> Dithered:
        return replace(self, step=self.step * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Dithered:
        return replace(self, step=round_scalar(self.step, dtype, key))

    @kept
    def _stream(self) -> bytes:
        symbol, bits = self.symbol.cpu().numpy(), shortest_bits(self.n)
        frequency = frequencies(self.ratio, self.counts, bits)
        columns = frequency.shape[1]
        pieces = Encoder(frequency, bits).pieces(
            lambda start, stop: rows_at(symbol, columns, self.seed, start, stop), self.n
        )
        return pack_pieces(pieces) + pack_tails(symbol, int(self._most))

    @kept
    def _law(self) -> bytes:
        return pack_law(self.ratio, self.counts)

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {"header": 8 + len(self._law), "scale": SCALARS[dtype].size, "value": len(self._stream)}

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        return [SCALARS[dtype].pack(self.step), *seed_parts(self.seed), self._law, self._stream]

    def shared_bytes(self, dtype: torch.dtype) -> bytes:
        return seed_parts(self.seed)[1]

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Dithered:
        """The inverse of `write`."""
        step = reader.scalar(dtype)
        reader.book("scale")
        seed = read_seed(reader)
        ratio, counts = read_law(reader)
        check_pieces(reader, n)
        bits = shortest_bits(n)
        frequency = frequencies(ratio, counts, bits)
        decoder, magnitudes = ContextDecoder(frequency, bits), symbol_of((np.arange(frequency.shape[1]) + 1) // 2)
        most = 2 * int(magnitudes[-1])  # what is below a bucket is less than its smallest
        symbol = room(n, torch.int8 if most <= 127 else torch.int16 if most <= 32767 else torch.int64)
        out = symbol.numpy()

        def decode(start: int, stop: int, states: np.ndarray, words: np.ndarray) -> bool:
            cells, negative = contexts_at(seed, start, stop)
            column = np.empty(stop - start, dtype=np.uint8 if len(magnitudes) <= 256 else np.uint16)
            if not decoder.piece(states, words, column, cells):
                return False
            signed_symbols(column, negative, magnitudes, out[start:stop])
            return True

        unpack_pieces(reader, n, decode)
        far = np.flatnonzero(np.abs(out) >= SINGLE) if len(magnitudes) >= 2 * SINGLE else np.zeros(0, dtype=np.int64)
        tails = read_tails(reader, tail_width(bucket_of(np.abs(out[far].astype(np.int64)))))
        out[far] += np.where(out[far] < 0, -tails, tails).astype(out.dtype)
        return cls(symbol, seed, step, ratio, counts)


def pack_law(ratio: float, counts: np.ndarray) -> bytes:
    """The law of the entries: the largest in steps, and the counts."""
    return struct.pack("<fB", ratio, len(counts)) + Integers(bucket_of(counts)).write()


def read_law(reader: Reader) -> tuple[float, np.ndarray]:
    """The inverse of `pack_law`."""
    ratio, size = struct.unpack("<fB", reader.take(5))
    buckets = Integers.read(reader, size)
    reader.book("header")
    counts = counted(np.minimum(buckets, LAST_BUCKET))
    if not (0 < ratio <= FURTHEST and 1 <= size <= _MOST_COUNTS) or counts.sum() == 0 or max(buckets) > LAST_BUCKET:
        raise WireError(f"{size} shares of entries up to {ratio} steps are no law of ours")
    return ratio, counts


def pack_tails(symbol: np.ndarray, most: int, least: int = 0) -> bytes:
    """The bits of each magnitude, `most` the largest, below its bucket, first those of all with the most: from 2^(k+4)
    on a magnitude has more than k. The `least` lowest are left out.
    """
    magnitude, planes = far_magnitudes(symbol, 16 << least), []
    for place in reversed(range(least, most.bit_length() - 4)):
        planes.append(((far_magnitudes(magnitude, 16 << place) >> place) & 1).astype(np.uint8))
    return pack_bits(np.concatenate(planes)) if planes else b""


def read_tails(reader: Reader, width: np.ndarray, least: int = 0) -> np.ndarray:
    """The inverse of `pack_tails` for magnitudes with so many bits below their buckets."""
    bits, at = reader.bits(int(np.maximum(width - least, 0).sum())), 0
    tail = np.zeros(len(width), dtype=np.int64)
    for place in range(int(width.max(initial=0)) - 1, least - 1, -1):
        which = np.flatnonzero(width > place)
        tail[which] |= bits[at : at + len(which)].astype(np.int64) << place
        at += len(which)
    return tail
