"""Dithered symbols of trellis paths: both ends know the dither and follow the path (A28.6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.coding.rans import PIECE, ContextDecoder, Encoder
from telegrad.kernels.quantising.dither_frequencies import path_frequencies, shortest_bits, symbol_of, tail_width
from telegrad.kernels.quantising.dithered_rounding import far_magnitudes
from telegrad.kernels.threads import kept
from telegrad.kernels.trellis.codes import STATES
from telegrad.kernels.trellis.dithered_paths import DENSITIES
from telegrad.kernels.trellis.dithered_streams import decoded_path
from telegrad.kernels.trellis.followed_paths import SINGLE, path_rows, undithered_path
from telegrad.kernels.trellis.paths import SEGMENT
from telegrad.wire.bits import SCALARS, Buffer, Reader, Shared, pack_bits, pack_varint, read_seed, seed_parts
from telegrad.wire.entropy_coded import check_pieces, pack_pieces, unpack_pieces
from telegrad.wire.values.base import Sizes
from telegrad.wire.values.dithered_symbols import DitheredSymbols, pack_tails, read_law, read_tails

__all__ = ["DitheredPaths"]


@dataclass(frozen=True)
class DitheredPaths(DitheredSymbols):
    """step · (symbol − dither), the dither that of a path through a trellis of so many states."""

    tag: ClassVar[int] = 9
    piece: ClassVar[int] = SEGMENT
    symbol: Tensor = field(repr=False)
    states: int
    seed: int
    step: float
    ratio: float
    counts: np.ndarray = field(repr=False)

    def make(self, low: int, high: int, out: np.ndarray) -> None:
        undithered_path(self.symbol.cpu().numpy()[low:high], self.step, self.seed, low, self.states, out)

    @kept
    def _stream(self) -> bytes:
        symbol, bits = self.symbol.cpu().numpy(), shortest_bits(self.n)
        frequency = path_frequencies(self.ratio, self.counts, bits, DENSITIES[self.states])
        columns = frequency.shape[1]
        pieces = Encoder(frequency, bits).pieces(
            lambda start, stop: path_rows(symbol[start:stop], columns, self.seed, start, self.states), self.n
        )
        packed = pack_pieces(pieces)
        if _has_far(columns):
            far = [far_magnitudes(symbol[start : start + PIECE], SINGLE) for start in range(0, self.n, PIECE)]
            ones = pack_bits(np.concatenate([np.zeros(0, dtype=np.int64), *far]).astype(np.uint8) & 1)
            packed = b"".join(pack_varint(len(part)) for part in far) + ones + packed
        return packed + pack_tails(symbol, int(self._most), 1)

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {"header": 9 + len(self._law), "scale": SCALARS[dtype].size, "value": len(self._stream)}

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        machine = Shared([STATES.index(self.states)])
        return [SCALARS[dtype].pack(self.step), *seed_parts(self.seed), machine, self._law, self._stream]

    def shared_bytes(self, dtype: torch.dtype) -> bytes:
        return seed_parts(self.seed)[1] + bytes([STATES.index(self.states)])

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> DitheredPaths:
        """The inverse of `write`."""
        step = reader.scalar(dtype)
        reader.book("scale")
        seed, machine = read_seed(reader), reader.shared.byte()
        if machine >= len(STATES):
            raise WireError(f"machine {machine} of a trellis is not ours")
        states, (ratio, counts) = STATES[machine], read_law(reader)
        check_pieces(reader, n)
        bits = shortest_bits(n)
        frequency = path_frequencies(ratio, counts, bits, DENSITIES[states])
        decoder, columns = ContextDecoder(frequency, bits), frequency.shape[1]
        ones, starts = np.zeros(0, dtype=np.uint8), [0] * (-(-n // PIECE) + 1)
        if _has_far(columns):
            announced = [reader.varint() for _ in range(-(-n // PIECE))]
            if any(count > PIECE for count in announced):
                raise WireError(f"a piece of {PIECE} symbols cannot have {max(announced)} far ones")
            starts = [0, *np.cumsum(announced).tolist()]
            ones = reader.bits(starts[-1]).astype(np.uint8, copy=False)
        magnitudes, symbol = symbol_of((np.arange(columns) + 1) // 2), np.empty(n, dtype=np.int32)

        def decode(start: int, stop: int, lanes: np.ndarray, words: np.ndarray) -> bool:
            own = ones[starts[start // PIECE] : starts[start // PIECE + 1]]
            coder = decoder.guess, decoder.starts, bits
            return decoded_path(lanes, words, *coder, seed, start, states, magnitudes, own, symbol[start:stop])

        unpack_pieces(reader, n, decode)
        far = np.flatnonzero(np.abs(symbol) >= SINGLE) if _has_far(columns) else np.zeros(0, dtype=np.int64)
        # Only the last bit below its bucket is known of a far magnitude.
        buckets = np.searchsorted(magnitudes[1::2], np.abs(symbol[far]), side="right")
        tails = read_tails(reader, tail_width(buckets), 1)
        symbol[far] += np.where(symbol[far] < 0, -tails, tails).astype(symbol.dtype)
        return cls(torch.from_numpy(symbol), states, seed, step, ratio, counts)


def _has_far(columns: int) -> bool:
    return columns > 2 * SINGLE - 1
