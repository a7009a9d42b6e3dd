"""Entropy coders of rotated vectors (A21.5, A28): what each predicts, and the message that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.eden_rate import LEAST, cells_rate, fixed_part, rotated_omega, sent_densely
from telegrad.compressors.normalised import Normalised
from telegrad.kernels.coding.rans import state_count
from telegrad.kernels.quantising.gaussian_cells import dead_zone, dead_zone_centroids
from telegrad.kernels.quantising.normalised_blocks import product
from telegrad.kernels.rotation.blocks import LARGEST
from telegrad.kernels.statistics.magnitudes import largest_in
from telegrad.kernels.trellis.codes import position_at, trellis_omega
from telegrad.kernels.trellis.paths import SEGMENT
from telegrad.random import Key
from telegrad.wire.code import Code, Term
from telegrad.wire.positions import All
from telegrad.wire.values import DeadZoneCells, RotatedCells, TrellisCells

__all__ = ["RotatedCoder"]

_REACH = 8.0  # nearly all normal numbers lie within
_FAINT = 0.25
_LEAST_PATHS = 0.06


@dataclass(frozen=True)
class RotatedCoder:
    """`entropy`: a uniform quantiser with a dead zone (A21.5); `trellis`: paths through a machine of `states` (A28),
    or, below .06 bits an entry, the dead zone: so few symbols make paths of long bursts, and blocks whose estimates
    differ much.
    """

    coder: Literal["entropy", "trellis"] = "entropy"
    states: int = 8

    @property
    def most(self) -> float:
        """The most bits a coordinate."""
        return 12.0 if self.coder == "entropy" else 6.0

    def rate(self, budget: float | np.ndarray, d: int, dtype: torch.dtype = torch.float32) -> np.ndarray:
        """Bits an entry that a message of `budget` bits has for its symbols, by estimate; never less than a block's one
        entry costs.
        """
        rate = cells_rate(budget, d, dtype)
        if self.coder == "trellis":
            paths = (np.asarray(budget) - fixed_part(d, dtype) + 48) / d
            paths = paths - np.clip(0.01 * paths, 24 / d, 24 * state_count(d) / d)
            rate = np.where(paths >= _LEAST_PATHS, paths, rate)
        return np.clip(rate, LEAST, self.most)

    def omega(self, budget: float | np.ndarray, d: int, dtype: torch.dtype = torch.float32) -> np.ndarray:
        """D / (1 − D), predicted for messages of `budget` bits."""
        faint = rotated_omega(budget, d, dtype)
        if self.coder == "entropy":
            return faint
        rate = self.rate(budget, d, dtype)
        return np.where(rate >= _LEAST_PATHS, trellis_omega(self.states, rate), faint)

    def term(self, x: Tensor, budget: float, dtype: torch.dtype, key: Key) -> Term:
        """x in a message of about `budget` bits for a tensor of `dtype`.

        The quantiser that the normal law suggests is tried, and adjusted where the message has another length. That is
        symmetric in the rotated entries, so it biases nothing.
        """
        d, rate = len(x), float(self.rate(budget, len(x), dtype))
        normalised = Normalised(x, key)
        tried: _Tried = _DeadZone(normalised)
        if self.coder == "trellis" and rate >= _LEAST_PATHS:
            tried = _Trellis(normalised, self.states)
        best: tuple[float, Term] | None = None
        for _ in range(4):
            term = Term(All(d), tried.coded(rate).rounded(dtype, key))
            error = (Code((d,), dtype, (term,)).nbits - budget) / d
            if best is None or abs(error) < best[0]:
                best = abs(error), term
            before, rate = rate, min(self.most, max(rate / 2, LEAST, rate - error))
            if abs(error) * d <= max(8.0, 0.002 * budget) or rate == before:
                break
        assert best is not None
        return best[1]


class _Tried(Protocol):
    def coded(self, rate: float) -> RotatedCells: ...


class _DeadZone:
    """A vector, to be rotated, normalised and quantised at several rates: each time anew, but for the short blocks, for
    what is rotated would be as long as the vector.
    """

    def __init__(self, normalised: Normalised) -> None:
        self.normalised = normalised
        self.reach = _REACH
        self.short: dict[int, np.ndarray] = {}

    def coded(self, rate: float) -> RotatedCells:
        """In the best dead zone at `rate` bits an entry."""
        rotation, zone = self.normalised.rotation, dead_zone(rate)
        while True:
            cells = DeadZoneCells.blank(rotation.n, *zone, self.reach)
            positive = dead_zone_centroids(cells.zero, cells.step, cells.top(self.reach)).numpy()
            table = np.concatenate([-positive[:0:-1], positive]), 1 - len(positive)
            done = rotation.each_block(partial(self._quantised, cells, table))
            reached = max((largest for _, largest in done), default=0.0)
            if reached <= self.reach:
                break
            self.reach = reached
        matches, d = [match for match, _ in done], rotation.n
        if sent_densely(d, int(cells.symbol.count_nonzero())):
            return self.normalised.carried(All(d), cells, matches)
        which = cells.symbol.nonzero().squeeze(1)
        listed = DeadZoneCells(cells.symbol[which], cells.zero, cells.step)
        return self.normalised.carried(All(d).keep(which), listed, matches)

    def _quantised(self, cells: DeadZoneCells, table: tuple[np.ndarray, int], number: int) -> tuple[float, float]:
        """(⟨q, z⟩, the largest magnitude) of a block, its cells filled in; no use where that is out of reach."""
        z = self._block(number)
        largest = largest_in(z)
        if largest > self.reach:
            return 0.0, largest
        own = cells.quantise(self.normalised.rotation.starts[number], z)
        if not own.any() and self.normalised.lengths[number] > 0:
            # A block without any symbol could not be unbiased: its largest entry is sent.
            place = int(np.abs(z).argmax())
            own[place] = np.sign(z[place])
        return product(own, *table, z), largest

    def _block(self, number: int) -> np.ndarray:
        if self.normalised.rotation.sizes[number] == LARGEST:
            return self.normalised.block(number)
        if number not in self.short:  # rotated in float64
            self.short[number] = self.normalised.block(number).astype(self.normalised.x.dtype)
        return self.short[number]


class _Trellis:
    """The same in the paths of a trellis: one segment a long block, and one for all short blocks."""

    def __init__(self, normalised: Normalised, states: int) -> None:
        self.normalised, self.states = normalised, states
        self.short: list[np.ndarray] = []

    def coded(self, rate: float) -> RotatedCells:
        """In the code of `rate` bits an entry."""
        rotation = self.normalised.rotation
        cells = TrellisCells.blank(rotation.n, self.states, position_at(self.states, rate))
        whole, tried = rotation.n // LARGEST, self.short
        done = rotation.each_block(partial(self._quantised, cells))
        if not tried:
            self.short = done[whole:]
        matches = [match for match in done[:whole] for match in match]
        return self.normalised.carried(All(rotation.n), cells, matches + self._paths(cells, whole, self.short))

    def _quantised(self, cells: TrellisCells, number: int) -> list[float] | np.ndarray:
        """⟨q, z⟩ of a long block, its rows filled in; z of a short one."""
        if self.normalised.rotation.sizes[number] == LARGEST:
            return self._paths(cells, number, [self.normalised.block(number)])
        return self.normalised.block(number).astype(self.normalised.x.dtype) if not self.short else np.zeros(0)

    def _paths(self, cells: TrellisCells, first: int, blocks: list[np.ndarray]) -> list[float]:
        """The ⟨q, z⟩ of neighbouring blocks in one segment, from block `first` on."""
        if not blocks:
            return []
        start, code, gain = self.normalised.rotation.starts[first], cells.code, np.ones(len(blocks))
        rows = cells.symbol.numpy()[start : start + sum(map(len, blocks))]
        ends = np.cumsum(list(map(len, blocks)))
        while True:
            louder = (np.float32(g) * z.astype(np.float32) for g, z in zip(gain, blocks, strict=True))
            code.quantise(np.concatenate(list(louder)) if len(blocks) > 1 else next(louder), rows)
            parts = np.split(rows, ends[:-1])
            matches = [product(part, code.point, 0, z) for part, z in zip(parts, blocks, strict=True)]
            # A block with hardly any symbol would have a huge scale, or none: it is quantised as if it were louder.
            faint = [
                match < _FAINT and length > 0
                for match, length in zip(matches, self.normalised.lengths[first:], strict=False)
            ]
            if not any(faint) or gain.max() > 1e6:
                return matches
            gain = np.where(faint, 2 * gain, gain)


assert SEGMENT == LARGEST
