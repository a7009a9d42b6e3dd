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
from telegrad.kernels.memory import adds_in_pieces, room
from telegrad.kernels.quantising.narrowing import narrowed
from telegrad.kernels.rotation.blocks import LARGEST, block_sizes
from telegrad.kernels.rotation.hadamard import Rotation
from telegrad.random import Key
from telegrad.wire.bits import SCALARS, Buffer, Reader, Shared, read_seed, seed_parts
from telegrad.wire.kinds import Kinds
from telegrad.wire.positions import POSITIONS, Positions
from telegrad.wire.values.base import Sizes, Values, largest_of, scalar_dtype
from telegrad.wire.values.cells import Cells, DeadZoneCells, LloydMaxCells
from telegrad.wire.values.trellis import TrellisCells

__all__ = ["Inner", "Rotated", "RotatedCells", "read_inner"]

Fill = Callable[[int, np.ndarray], None]

_CELLS: Kinds[type[Cells]] = Kinds("cells", (LloydMaxCells, DeadZoneCells, TrellisCells))


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

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        return [Shared([self._kinds]), *self.positions.parts(), *self.values.parts(dtype)]

    def shared_bytes(self, dtype: torch.dtype) -> bytes:
        return bytes([self._kinds]) + self.positions.shared_bytes + self.values.shared_bytes(dtype)

    @property
    def _kinds(self) -> int:
        return self.positions.tag << 4 | self.values.tag


def read_inner(reader: Reader, n: int, dtype: torch.dtype) -> tuple[Positions, Values]:
    """The inverse of `Inner.write`."""
    # The table of kinds holds what is defined in this file.
    from telegrad.wire.values import VALUES

    kinds = reader.shared.byte()
    reader.book("header")
    if issubclass(VALUES[kinds & 0xF], Inner):
        # Nesting has no use, and without end it would exhaust the stack.
        raise WireError("the message nests one change of basis in another")
    positions = POSITIONS[kinds >> 4].read(reader, n)
    reader.book("index")
    values = VALUES[kinds & 0xF].read(reader, positions.n, dtype)
    reader.book("value")
    return positions, values


@dataclass(frozen=True)
class Rotated(Inner):
    """The inner vector, rotated back block by block.

    A 64-bit seed stands for the rotation (see `telegrad.kernels.rotation.hadamard`).
    """

    tag: ClassVar[int] = 7
    seed: int

    def _back(self, y: Tensor) -> Tensor:
        return _turned_back(Rotation(self.n, self.seed), None, _from(y), y.dtype)

    @property
    def _longest(self) -> int:
        return LARGEST

    def sizes(self, dtype: torch.dtype) -> Sizes:
        account = Counter(super().sizes(dtype))
        account["header"] += 9
        return dict(account)

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        return [*seed_parts(self.seed), Shared([False]), *super().parts(dtype)]

    def shared_bytes(self, dtype: torch.dtype) -> bytes:
        return seed_parts(self.seed)[1] + bytes([False]) + super().shared_bytes(dtype)

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Values:
        """The inverse of `write`, and of that of `RotatedCells`, which goes by the same tag."""
        seed, form = read_seed(reader), reader.shared.byte()
        reader.book("header")
        if form == 1:
            return RotatedCells.read_for(seed, reader, n, dtype)
        if form:
            raise WireError(f"a rotation of format {form} is not ours")
        return cls(*read_inner(reader, n, dtype), seed)


@dataclass(frozen=True)
class RotatedCells(Values):
    """Cells at positions of a rotated vector of n entries, zero elsewhere; each block of the rotation has its scale."""

    tag: ClassVar[int] = Rotated.tag
    positions: Positions
    cells: Cells
    seed: int
    scales: Tensor = field(repr=False)

    @property
    def n(self) -> int:
        return self.positions.d

    def numbers(self) -> Tensor:
        return self.numbers_as(torch.float64)

    def numbers_as(self, dtype: torch.dtype) -> Tensor:
        # Cells are coarse: float32 is precise enough for them where the result is no finer.
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return _turned_back(Rotation(self.n, self.seed), self.scales, self._fill(), wide).to(dtype)

    def add_to(self, out: Tensor, weight: float) -> None:
        if not adds_in_pieces(out):
            super().add_to(out, weight)
            return
        rotation, fill, target = Rotation(self.n, self.seed), self._fill(), out.detach().numpy()
        factors = self.scales.tolist()

        def work(number: int) -> None:
            block = rotation.scratch(number, target.dtype)
            fill(rotation.starts[number], block)
            rotation.add_block_back(block, number, factors[number], target, weight)

        rotation.each_block(work)

    def _fill(self) -> Fill:
        """What writes neighbouring entries of the rotated vector, before the scales of their blocks."""
        index = self.positions.indices()
        if index is None:
            return self.cells.fill
        places, numbers = index.numpy(), self.cells.numbers().numpy()

        def fill(start: int, out: np.ndarray) -> None:
            low, high = np.searchsorted(places, (start, start + len(out)))
            out[:] = 0.0
            out[places[low:high] - start] = numbers[low:high]

        return fill

    def largest(self) -> float:
        # Rotations are isometries.
        return self.cells.largest() * math.sqrt(min(self.positions.n, LARGEST)) * largest_of(self.scales)

    def scaled(self, factor: float) -> RotatedCells:
        return replace(self, scales=self.scales * factor)

    def rounded(self, dtype: torch.dtype, key: Key | None) -> RotatedCells:
        own = key.fold(role="scales") if key else None
        return replace(self, scales=narrowed(self.scales, scalar_dtype(dtype), own).double())

    def sizes(self, dtype: torch.dtype) -> Sizes:
        account = Counter(self.cells.sizes())
        account["header"] += 10
        account["scale"] += len(self.scales) * SCALARS[dtype].size
        account["index"] += self.positions.nbytes
        return dict(account)

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        scales = self.scales.to(scalar_dtype(dtype)).cpu().numpy().tobytes()
        head = [*seed_parts(self.seed), Shared([True]), scales, Shared([self._kinds])]
        return [*head, *self.positions.parts(), *self.cells.parts()]

    def shared_bytes(self, dtype: torch.dtype) -> bytes:
        own = seed_parts(self.seed)[1] + bytes([True, self._kinds])
        return own + self.positions.shared_bytes + self.cells.shared_bytes

    @property
    def _kinds(self) -> int:
        return self.positions.tag << 4 | self.cells.tag

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> RotatedCells:
        """The inverse of `write`."""
        found = Rotated.read(reader, n, dtype)
        if not isinstance(found, cls):
            raise WireError("the message announces a rotated vector that is not in cells")
        return found

    @classmethod
    def read_for(cls, seed: int, reader: Reader, n: int, dtype: torch.dtype) -> RotatedCells:
        """What follows the seed of a rotation and the byte that says that cells do."""
        # Every block but the short ones has 65536 entries: so many scales must be there before they are counted out.
        if n // 65536 * SCALARS[dtype].size > reader.left:
            raise WireError(f"truncated message: the scales of {n} entries are announced, {reader.left} bytes are left")
        raw = bytearray(reader.take(len(block_sizes(n)) * SCALARS[dtype].size))
        scales = torch.frombuffer(raw, dtype=scalar_dtype(dtype)).double() if n else torch.zeros(0).double()
        reader.book("scale")
        kinds = reader.shared.byte()
        reader.book("header")
        positions = POSITIONS[kinds >> 4].read(reader, n)
        reader.book("index")
        cells = _CELLS[kinds & 0xF].read(reader, positions.n)
        reader.book("value")
        return cls(positions, cells, seed, scales)


def _from(y: Tensor) -> Fill:
    return lambda start, out: np.copyto(out, y.numpy()[start : start + len(out)])


def _turned_back(rotation: Rotation, scales: Tensor | None, fill: Fill, dtype: torch.dtype) -> Tensor:
    """What `fill` writes of the rotated vector, each block times its scale, rotated back."""
    out = room(rotation.n, dtype)
    factors = [1.0] * len(rotation.sizes) if scales is None else scales.tolist()

    def work(number: int) -> None:
        block = rotation.scratch(number, out.numpy().dtype)
        fill(rotation.starts[number], block)
        rotation.block_back(block, number, factors[number], out.numpy())

    rotation.each_block(work)
    return out
