"""Dithered symbols: both ends know the dither, and the symbols are coded given it (A26)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.coding.rans import ContextDecoder, Encoder
from telegrad.kernels.memory import room
from telegrad.kernels.quantising.dither_frequencies import (
    SINGLE,
    bucket_of,
    frequencies,
    shortest_bits,
    symbol_of,
    tail_width,
)
from telegrad.kernels.quantising.dithered_rounding import (
    contexts_at,
    rows_at,
    signed_symbols,
    write_undithered,
)
from telegrad.kernels.threads import kept
from telegrad.wire.bits import SCALARS, Buffer, Reader, read_seed, seed_parts
from telegrad.wire.entropy_coded import check_pieces, pack_pieces, unpack_pieces
from telegrad.wire.values.base import Sizes
from telegrad.wire.values.dithered_symbols import DitheredSymbols, pack_tails, read_law, read_tails

__all__ = ["Dithered"]


@dataclass(frozen=True)
class Dithered(DitheredSymbols):
    """step · (symbol − dither), the dither uniform, a number of its own for each entry."""

    tag: ClassVar[int] = 8
    piece: ClassVar[int] = 65408  # entries that the cache holds
    symbol: Tensor = field(repr=False)
    seed: int
    step: float
    ratio: float
    counts: np.ndarray = field(repr=False)

    def make(self, low: int, high: int, out: np.ndarray) -> None:
        write_undithered(self.symbol.cpu().numpy()[low:high], self.step, self.seed, low, out)

    @kept
    def _stream(self) -> bytes:
        symbol, bits = self.symbol.cpu().numpy(), shortest_bits(self.n)
        frequency = frequencies(self.ratio, self.counts, bits)
        columns = frequency.shape[1]
        pieces = Encoder(frequency, bits).pieces(
            lambda start, stop: rows_at(symbol, columns, self.seed, start, stop), self.n
        )
        return pack_pieces(pieces) + pack_tails(symbol, int(self._most))

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
