"""Values in a rotated domain: an inner message of places and values, turned back by whoever decodes it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.hadamard import LARGEST, Rotation, block_sizes
from telegrad.kernels.narrowing import narrowed
from telegrad.random import Key
from telegrad.wire.bits import Reader
from telegrad.wire.positions import Positions, read_positions
from telegrad.wire.values.base import Sizes, Values, largest_of, scalar_dtype, scalar_nbytes
from telegrad.wire.values.cells import DeadZoneCells, LloydMaxCells

__all__ = ["Inner", "Rotated", "read_inner"]


@dataclass(frozen=True)
class Inner(Values):
    """Values at positions of a vector of n entries in another basis; zero elsewhere. Subclasses know the way back."""

    positions: Positions
    values: Values

    @property
    def n(self) -> int:
        return self.positions.d

    @abstractmethod
    def _back(self, y: Tensor) -> Tensor:
        """The float64 vector y of n entries in the basis of the message."""

    def numbers(self) -> Tensor:
        inner, index = self.values.numbers().double(), self.positions.indices()
        if index is None:
            return self._back(inner)
        return self._back(inner.new_zeros(self.n).index_add_(0, index.to(inner.device), inner))

    def largest(self) -> float:
        # Changes of basis are isometries.
        return self.values.largest() * math.sqrt(min(self.positions.n, self._longest))

    @property
    @abstractmethod
    def _longest(self) -> int:
        """The largest number of entries that are mixed with each other."""

    def scaled(self, factor: float) -> Any:
        return replace(self, values=self.values.scaled(factor))

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Any:
        return replace(self, values=self.values.rounded(dtype, key.fold(role="inner") if key else None))

    def sizes(self, dtype: torch.dtype) -> Sizes:
        account = Counter(self.values.sizes(dtype))
        account["header"] += 1
        account["index"] += self.positions.nbytes
        return dict(account)

    def write(self, dtype: torch.dtype) -> bytes:
        kinds = self.positions.tag << 4 | self.values.tag
        return bytes([kinds]) + self.positions.write() + self.values.write(dtype)


def read_inner(reader: Reader, n: int, dtype: torch.dtype) -> tuple[Positions, Values]:
    """The inverse of `Inner.write`."""
    # The table of kinds holds what is defined in this file.
    from telegrad.wire.values import kind_of, read_values

    kinds = reader.byte()
    reader.book("header")
    if issubclass(kind_of(kinds & 0xF), Inner):
        # Nesting has no use, and without end it would exhaust the stack.
        raise WireError("the message nests one change of basis in another")
    positions = read_positions(kinds >> 4, reader, n)
    reader.book("index")
    return positions, read_values(kinds & 0xF, reader, positions.n, dtype)


@dataclass(frozen=True)
class Rotated(Inner):
    """The inner vector, each block of the rotation times its scale (where there are scales), rotated back.

    A 64-bit seed stands for the rotation (see `telegrad.kernels.hadamard`).
    """

    tag: ClassVar[int] = 7
    seed: int
    scales: Tensor | None = field(default=None, repr=False)

    def _back(self, y: Tensor) -> Tensor:
        return self._turned_back(lambda start, out: np.copyto(out, y.numpy()[start : start + len(out)]), torch.float64)

    def _turned_back(self, fill: Callable[[int, np.ndarray], None], dtype: torch.dtype) -> Tensor:
        rotation, out = Rotation(self.n, self.seed), torch.empty(self.n, dtype=dtype)
        scales = [1.0] * len(rotation.sizes) if self.scales is None else self.scales.tolist()

        def work(number: int) -> None:
            block = rotation.scratch(number, out.numpy().dtype)
            fill(rotation.starts[number], block)
            rotation.block_back(block, number, scales[number], out.numpy())

        rotation.each_block(work)
        return out

    def numbers_as(self, dtype: torch.dtype) -> Tensor:
        # Cells are coarse: float32 is precise enough for them where the result is no finer.
        if dtype == torch.float64 or self.scales is None or not isinstance(self.values, LloydMaxCells | DeadZoneCells):
            return self.numbers().to(dtype)
        fill: Callable[[int, np.ndarray], None] = self.values.fill
        index = self.positions.indices()
        if index is not None:
            y = torch.zeros(self.n).index_add_(0, index, self.values.numbers().float()).numpy()

            def fill(start: int, out: np.ndarray) -> None:
                out[:] = y[start : start + len(out)]

        return self._turned_back(fill, torch.float32).to(dtype)

    @property
    def _longest(self) -> int:
        return LARGEST

    def largest(self) -> float:
        return super().largest() * (1.0 if self.scales is None else largest_of(self.scales))

    def scaled(self, factor: float) -> Rotated:
        return super().scaled(factor) if self.scales is None else replace(self, scales=self.scales * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Rotated:
        inner: Rotated = super().rounded(dtype, key)
        if self.scales is None:
            return inner
        own = key.fold(role="scales") if key else None
        return replace(inner, scales=narrowed(self.scales, scalar_dtype(dtype), own).double())

    def sizes(self, dtype: torch.dtype) -> Sizes:
        account = Counter(super().sizes(dtype))
        account["header"] += 9
        account["scale"] += 0 if self.scales is None else len(self.scales) * scalar_nbytes(dtype)
        return dict(account)

    def write(self, dtype: torch.dtype) -> bytes:
        head = self.seed.to_bytes(8, "little") + bytes([self.scales is not None])
        if self.scales is not None:
            head += self.scales.to(scalar_dtype(dtype)).cpu().numpy().tobytes()
        return head + super().write(dtype)

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Rotated:
        """The inverse of `write`."""
        seed, scaled = int.from_bytes(reader.take(8), "little"), reader.byte()
        if scaled > 1:
            raise WireError(f"a rotation of format {scaled} is not ours")
        reader.book("header")
        scales = None
        # Every block but the short ones has 65536 entries: so many scales must be there before they are counted out.
        if scaled and n // 65536 * scalar_nbytes(dtype) > reader.left:
            raise WireError(f"truncated message: the scales of {n} entries are announced, {reader.left} bytes are left")
        if scaled:
            raw = bytearray(reader.take(len(block_sizes(n)) * scalar_nbytes(dtype)))
            scales = torch.frombuffer(raw, dtype=scalar_dtype(dtype)).double() if n else torch.zeros(0).double()
        reader.book("scale")
        positions, values = read_inner(reader, n, dtype)
        return cls(positions, values, seed, scales)
