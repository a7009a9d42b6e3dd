"""EDEN: a random rotation makes every vector look Gaussian, and a quantiser made for that law does the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded, not_finite
from telegrad.compressors.eden_rate import LEAST, cells_rate, rotated_omega, sent_densely
from telegrad.kernels.cells import product
from telegrad.kernels.gaussian import dead_zone, dead_zone_centroids, lloyd_max_omega
from telegrad.kernels.hadamard import LARGEST, Rotation
from telegrad.kernels.magnitudes import largest_in, plain, sums_of_squares_in
from telegrad.kernels.selection import SMALL
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Code, Term
from telegrad.wire.positions import All, Positions, Subset
from telegrad.wire.values import DeadZoneCells, LloydMaxCells, RotatedCells
from telegrad.wire.values.cells import Cells

__all__ = ["Eden", "entropy_coded_term"]

_REACH = 8.0  # nearly all normal numbers lie within


@register("eden", example="eden(bits=0.5, coder=entropy)", source="A21; Vargaftik et al. 2021 (DRIVE) and 2022 (EDEN)")
@dataclass(frozen=True)
class Eden(Compressor):
    """C(x) = Rᵀ (S_b q_b): y = R x, rotated block by block; q_b cells of y_b √n_b / ‖x_b‖; S_b = ‖x_b‖² / ⟨q_b, y_b⟩.

    The scale S makes ⟨C(x), x⟩ = ‖x‖² for every draw (A21.3). `coder=fixed`: Lloyd-Max centroids of N(0, 1); bits=1 is
    DRIVE; between whole bits a share of the entries gets one bit more; below 1 a random subset of the entries is sent,
    times d/k. `coder=entropy`: a uniform quantiser with a dead zone, its symbols entropy coded so that the whole
    message has `bits` a coordinate (A21.5).

    omega and `variance` are a prediction, D / (1 − D) with D the quantiser's distortion of N(0, 1): .571, .133, .0358
    at 1, 2, 3 fixed bits (A21.4), and with `coder=entropy` at the rate that a message of so many entries has for
    symbols. Unbiased exactly under a uniform rotation, which the last d mod 64 entries have; under the rounds of
    Hadamard transforms of all others up to ‖bias‖² of about 1e-5 ‖x‖² for most x. One bit leaves up to 7e-5 where one
    entry is far larger than all others, and 1e-3 where these are only 64; two nearly equal entries among 64 leave 2e-3.
    So `exact` is false, and methods treat it as unbiased.
    """

    bits: float = 1.0
    coder: Literal["fixed", "entropy"] = "fixed"

    unbiased = True
    random = True
    exact = False

    def __post_init__(self) -> None:
        most = 8 if self.coder == "fixed" else 12
        check_that(0 < self.bits <= most, self, "bits", f"bits a coordinate above 0 and up to {most} are allowed")

    def omega(self, d: int) -> float:
        if self.coder == "entropy":
            return float(rotated_omega(self.bits * d, d))
        return (
            lloyd_max_omega(self.bits)
            if self.bits >= 1
            else lloyd_max_omega(1) * d / self._kept(d) + d / self._kept(d) - 1
        )

    def alpha(self, d: int) -> float:
        return max(0.0, 1 - self.omega(d))

    def _kept(self, d: int) -> int:
        return min(d, max(1, round(self.bits * d)))

    def checks(self, v: Tensor) -> bool:
        # Every entry goes into a block whose energy is looked at; float64 may have to be scaled first.
        return self.coder == "fixed" and self.bits >= 1 and v.numel() >= SMALL and v.dtype != torch.float64

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d = len(v)
        if self.coder == "entropy":
            return Encoded((entropy_coded_term(v, self.bits * d, v.dtype, key),))
        positions: Positions = All(d)
        x, factor = v, 1.0
        if self.bits < 1:
            positions = Subset(d, self._kept(d), key.fold(role="subset").to_int())
            x, factor = v[positions.indices().to(v.device)], d / positions.n
        bits = max(1, int(self.bits))
        share = round((self.bits - bits) * 65536) if self.bits > 1 else 0
        vector, cells = _Normalised(x, key), LloydMaxCells.blank(len(x), bits, share)
        rotation = vector.rotation
        matches = rotation.each_block(lambda number: cells.quantise(rotation.starts[number], vector.block(number)))
        values = vector.carried(All(len(x)), cells, matches).scaled(factor)
        return Encoded((Term(positions, values.rounded(v.dtype, key)),))

    def _variance(self, v: Tensor) -> float:
        return self.omega(len(v)) * float(v.double().square().sum())


class _Normalised:
    """The rotation of v that the key says, each block normalised to a mean square of 1: about N(0, 1)."""

    def __init__(self, v: Tensor, key: Key) -> None:
        self.x, self.seed = plain(v), key.fold(role="rotation").to_int()
        self.rotation = Rotation(len(v), self.seed)
        # (‖x_b‖² / the root of the mean square) of each block
        self.lengths = np.zeros(len(self.rotation.sizes))

    def block(self, number: int) -> np.ndarray:
        """z of that block; lasts until this thread's next call."""
        y, c = self.rotation.block(self.x, number)
        energy = float(sums_of_squares_in(y, len(y))[0])
        if not math.isfinite(energy):
            raise not_finite(self.x)
        deviation = math.sqrt(energy / len(y))
        if deviation > 0:
            y *= y.dtype.type(1 / deviation)
        self.lengths[number] = math.sqrt(energy * len(y)) / c
        return y

    def carried(self, positions: Positions, cells: Cells, matches: list[float]) -> RotatedCells:
        """The message of these cells, with the scales ‖x_b‖² / ⟨q_b, y_b⟩; `matches`: the ⟨q_b, z_b⟩."""
        match = np.array(matches)
        scales = np.where(self.lengths > 0, self.lengths / np.where(self.lengths > 0, match, 1.0), 0.0)
        return RotatedCells(positions, cells, self.seed, torch.from_numpy(scales))


class _DeadZone:
    """A vector, to be rotated, normalised and quantised at several rates: each time anew, but for the short blocks, for
    what is rotated would be as long as the vector.
    """

    def __init__(self, v: Tensor, key: Key) -> None:
        self.normalised = _Normalised(v, key)
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


def entropy_coded_term(x: Tensor, budget: float, dtype: torch.dtype, key: Key) -> Term:
    """Entropy-coded EDEN of x in a message of about `budget` bits for a tensor of `dtype` (A21.5).

    The quantiser that the normal law suggests is tried, and adjusted where the message has another length. That is
    symmetric in the rotated entries, so it biases nothing.
    """
    d = len(x)
    vector, rate = _DeadZone(x, key), float(cells_rate(budget, d, dtype))
    best: tuple[float, Term] | None = None
    for _ in range(4):
        term = Term(All(d), vector.coded(rate).rounded(dtype, key))
        error = (Code((d,), dtype, (term,)).nbits - budget) / d
        if best is None or abs(error) < best[0]:
            best = abs(error), term
        before, rate = rate, min(12.0, max(rate / 2, LEAST, rate - error))
        if abs(error) * d <= max(8.0, 0.002 * budget) or rate == before:
            break
    assert best is not None
    return best[1]
