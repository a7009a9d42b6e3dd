"""Cells of a trellis code: what a point stands for depends on the path that led to it, which both ends follow (A28)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.quantising.normalised_blocks import looked_up
from telegrad.kernels.threads import kept
from telegrad.kernels.trellis.codes import STATES, TrellisCode, most_positions, trellis_code
from telegrad.wire.bits import Reader, Shared
from telegrad.wire.entropy_coded import check_pieces, pack_pieces, unpack_pieces
from telegrad.wire.values.base import Sizes
from telegrad.wire.values.cells import Cells

__all__ = ["TrellisCells"]


@dataclass(frozen=True)
class TrellisCells(Cells):
    """The rows of the paths of a trellis with so many `states`, of the code at `position`, from the first entry on."""

    tag: ClassVar[int] = 12
    symbol: Tensor = field(repr=False)
    states: int
    position: int

    @classmethod
    def blank(cls, n: int, states: int, position: int) -> TrellisCells:
        """Room for n rows, for `code.quantise` to fill, segment by segment."""
        return cls(torch.empty(n, dtype=torch.uint8), states, position)

    @property
    def code(self) -> TrellisCode:
        return trellis_code(self.states, self.position)

    def fill(self, start: int, out: np.ndarray) -> None:
        looked_up(self.symbol.numpy()[start : start + len(out)], self.code.point, 0, out)

    def largest(self) -> float:
        return float(np.abs(self.code.point).max())

    @kept
    def _stream(self) -> bytes:
        rows, code = self.symbol.numpy(), self.code
        return pack_pieces(code.encoder.pieces(lambda start, stop: rows[start:stop], self.n, code.lanes))

    def sizes(self) -> Sizes:
        return {"header": 3, "value": len(self._stream)}

    def parts(self) -> list[bytes]:
        return [self.shared_bytes, struct.pack("<H", self.position), self._stream]

    @property
    def shared_bytes(self) -> bytes:
        return Shared([STATES.index(self.states)])

    @classmethod
    def read(cls, reader: Reader, n: int) -> TrellisCells:
        """The inverse of `write`."""
        machine, position = reader.shared.byte(), int.from_bytes(reader.take(2), "little")
        reader.book("header")
        if machine >= len(STATES) or position > most_positions(STATES[machine]):
            raise WireError(f"trellis code {position} of machine {machine} is not ours")
        code = trellis_code(STATES[machine], position)
        check_pieces(reader, n, code.lanes)
        cells = cls.blank(n, STATES[machine], position)
        rows = cells.symbol.numpy()
        unpack_pieces(
            reader,
            n,
            lambda start, stop, states, words: code.decode(states, words, rows[start:stop]),
            code.lanes,
        )
        return cells
