"""What all dithered symbols have in common: numbers made a piece at a time, their scale, and the law of the entries."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.memory import add_in_pieces, adds_in_pieces, room
from telegrad.kernels.quantising.dither_frequencies import FURTHEST, LAST_BUCKET, bucket_of, counted
from telegrad.kernels.quantising.dithered_rounding import far_magnitudes
from telegrad.kernels.threads import in_chunks, kept
from telegrad.random import Key
from telegrad.wire.bits import Reader, pack_bits
from telegrad.wire.integers import Integers
from telegrad.wire.values.base import Values, largest_of, round_scalar

__all__ = ["DitheredSymbols", "pack_tails", "read_law", "read_tails"]

Own = TypeVar("Own", bound="DitheredSymbols")

_MOST_COUNTS = 120


class DitheredSymbols(Values, ABC):
    """step · (symbol − dither). `seed`: of the dither. `ratio` and `counts`: the law of the entries, see kernels."""

    piece: ClassVar[int]
    """Entries that are made together; others begin at multiples of it."""

    symbol: Tensor
    seed: int
    step: float
    ratio: float
    counts: np.ndarray

    @abstractmethod
    def make(self, low: int, high: int, out: np.ndarray) -> None:
        """Write numbers low … high − 1, float32 or float64; low is a multiple of `piece`."""

    @property
    def n(self) -> int:
        return len(self.symbol)

    def numbers(self) -> Tensor:
        return self._made(torch.float64)

    def numbers_as(self, dtype: torch.dtype) -> Tensor:
        return self._made(torch.float64 if dtype == torch.float64 else torch.float32).to(dtype)

    def _made(self, dtype: torch.dtype) -> Tensor:
        out = room(self.n, dtype)
        array = out.numpy()
        in_chunks(lambda _, low, high: self.make(low, high, array[low:high]), self.n, self.piece)
        return out

    def add_to(self, out: Tensor, weight: float) -> None:
        if adds_in_pieces(out):
            add_in_pieces(out, weight, self.n, self.piece, self.make)
        else:
            super().add_to(out, weight)

    def largest(self) -> float:
        return (self._most + 0.5) * abs(self.step)

    @kept
    def _most(self) -> float:
        return largest_of(self.symbol)

    def scaled(self: Own, factor: float) -> Own:
        return self._at(self.step * factor)

    def rounded(self: Own, dtype: torch.dtype, key: Key | None) -> Own:
        return self._at(round_scalar(self.step, dtype, key))

    def _at(self: Own, step: float) -> Own:
        own: Any = self  # a dataclass
        return replace(own, step=step)

    @kept
    def _law(self) -> bytes:
        """The law of the entries: the largest in steps, and the counts."""
        return struct.pack("<fB", self.ratio, len(self.counts)) + Integers(bucket_of(self.counts)).write()


def read_law(reader: Reader) -> tuple[float, np.ndarray]:
    """The law of the entries: `ratio` and `counts`."""
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
    places = range(most.bit_length() - 5, least - 1, -1)
    if not places:  # no pass over the symbols
        return b""
    far, planes = far_magnitudes(symbol, 16 << least), []
    for place in places:
        planes.append(((far_magnitudes(far, 16 << place) >> place) & 1).astype(np.uint8))
    return pack_bits(np.concatenate(planes))


def read_tails(reader: Reader, width: np.ndarray, least: int = 0) -> np.ndarray:
    """The inverse of `pack_tails` for magnitudes with so many bits below their buckets."""
    bits, at = reader.bits(int(np.maximum(width - least, 0).sum())), 0
    tail = np.zeros(len(width), dtype=np.int64)
    for place in range(int(width.max(initial=0)) - 1, least - 1, -1):
        which = np.flatnonzero(width > place)
        tail[which] |= bits[at : at + len(which)].astype(np.int64) << place
        at += len(which)
    return tail
