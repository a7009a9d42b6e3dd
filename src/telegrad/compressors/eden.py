"""EDEN: a random rotation makes every vector look Gaussian, and a quantiser made for that law does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.kernels.gaussian import dead_zone, entropy_coded_omega, lloyd_max_omega
from telegrad.kernels.hadamard import LARGEST, block_sizes, rotate
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Code, Term
from telegrad.wire.positions import All, Positions, Subset
from telegrad.wire.values import DeadZoneCells, LloydMaxCells, Rotated
from telegrad.wire.values.base import scalar_nbytes

__all__ = ["Eden", "cells_rate", "entropy_coded_term"]

_SPARSE = 1 / 16
_LEAST = 2.0**-10


@register("eden", example="eden(bits=0.5, coder=entropy)", source="A21; Vargaftik et al. 2021 (DRIVE) and 2022 (EDEN)")
@dataclass(frozen=True)
class Eden(Compressor):
    """C(x) = Rᵀ (S_b q_b): y = R x, rotated block by block; q_b cells of y_b √n_b / ‖x_b‖; S_b = ‖x_b‖² / ⟨q_b, y_b⟩.

    The scale S makes ⟨C(x), x⟩ = ‖x‖² for every draw (A21.3). `coder=fixed`: Lloyd-Max centroids of N(0, 1); bits=1 is
    DRIVE; between whole bits a share of the entries gets one bit more; below 1 a random subset of the entries is sent,
    times d/k. `coder=entropy`: a uniform quantiser with a dead zone, its symbols entropy coded so that the whole
    message has `bits` a coordinate (A21.5).

    omega and `variance` are the prediction for large d, D / (1 − D) with D the quantiser's distortion of N(0, 1):
    .571, .133, .0358 at 1, 2, 3 fixed bits (A21.4). Unbiased exactly under a uniform rotation, which the last d mod 64
    entries have; under the rounds of Hadamard transforms of all others up to ‖bias‖² of about 1e-5 ‖x‖², and 2e-3 at
    worst (two nearly equal entries among 64 that are zero otherwise). So `exact` is false, and methods treat it as
    unbiased.
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
            return float(entropy_coded_omega(cells_rate(self.bits * d, d)))
        return (
            lloyd_max_omega(self.bits)
            if self.bits >= 1
            else lloyd_max_omega(1) * d / self._kept(d) + d / self._kept(d) - 1
        )

    def alpha(self, d: int) -> float:
        return max(0.0, 1 - self.omega(d))

    def _kept(self, d: int) -> int:
        return min(d, max(1, round(self.bits * d)))

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d = len(v)
        if self.coder == "entropy":
            return Encoded((entropy_coded_term(v.double(), self.bits * d, v.dtype, key),))
        positions: Positions = All(d)
        x = v.double()
        if self.bits < 1:
            positions = Subset(d, self._kept(d), key.fold(role="subset").to_int())
            x = x[positions.indices().to(v.device)] * (d / positions.n)
        bits = max(1, int(self.bits))
        share = round((self.bits - bits) * 65536) if self.bits > 1 else 0
        rotation = _Rotation(x, key)
        values = rotation.carrying(All(len(x)), LloydMaxCells.quantise(rotation.z, bits, share))
        return Encoded((Term(positions, values.rounded(v.dtype, key)),))

    def _variance(self, v: Tensor) -> float:
        return self.omega(len(v)) * float(v.double().square().sum())


def _capped(omega: float, d: int) -> float:
    """One entry of a block of n, its largest, would leave n − 1 at most: so do the cells, whatever their rate."""
    return min(omega, max(block_sizes(d), default=1) - 1.0)


class _Rotation:
    """x rotated by what the key says, and normalised block by block: z is about N(0, 1)."""

    def __init__(self, x: Tensor, key: Key) -> None:
        self.seed = key.fold(role="rotation").to_int()
        self.y = rotate(x, self.seed)
        self.sizes = torch.tensor(block_sizes(len(x)), device=x.device)
        self.energy = self.sums(self.y.square())
        deviation = (self.energy / self.sizes).sqrt()
        self.z = self.y / torch.where(deviation > 0, deviation, 1.0).repeat_interleave(self.sizes)

    def sums(self, numbers: Tensor) -> Tensor:
        """The sum of each block."""
        return torch.stack([part.sum() for part in numbers.split(self.sizes.tolist())])

    def carrying(self, positions: Positions, cells: DeadZoneCells | LloydMaxCells) -> Rotated:
        """The message of these cells, with the scales ‖x_b‖² / ⟨q_b, y_b⟩."""
        index = positions.indices()
        q = cells.numbers() if index is None else torch.zeros_like(self.y).index_add_(0, index, cells.numbers())
        match = self.sums(q * self.y)
        return Rotated(positions, cells, self.seed, torch.where(self.energy > 0, self.energy / match, 0.0))

    def dead_zone(self, rate: float) -> Rotated:
        """Coded in the best dead zone at `rate` bits an entry."""
        cells = DeadZoneCells.quantise(self.z, *dead_zone(rate))
        symbol = cells.symbol
        silent = self.sums(symbol.abs().double()) == 0
        at = 0
        for size, lost in zip(self.sizes.tolist(), (silent & (self.energy > 0)).tolist(), strict=True):
            if lost:
                # A block without any symbol could not be unbiased: its largest entry is sent.
                place = at + int(self.z[at : at + size].abs().argmax())
                symbol[place] = self.z[place].sign().to(torch.int64)
            at += size
        which = symbol.nonzero().squeeze(1)
        if len(symbol) >= 512 and len(which) >= _SPARSE * len(symbol):
            return self.carrying(All(len(symbol)), cells)
        listed = DeadZoneCells(symbol[which], cells.zero, cells.step)
        return self.carrying(All(len(symbol)).keep(which), listed)


def entropy_coded_term(x: Tensor, budget: float, dtype: torch.dtype, key: Key) -> Term:
    """Entropy-coded EDEN of the float64 x in a message of about `budget` bits for a tensor of `dtype` (A21.5).

    The quantiser that the normal law suggests is tried, and adjusted where the message has another length. That is
    symmetric in the rotated entries, so it biases nothing.
    """
    d = len(x)
    rotation, rate = _Rotation(x, key), cells_rate(budget, d, dtype)
    best: tuple[float, Term] | None = None
    for _ in range(4):
        term = Term(All(d), rotation.dead_zone(rate).rounded(dtype, key))
        error = (Code((d,), dtype, (term,)).nbits - budget) / d
        if best is None or abs(error) < best[0]:
            best = abs(error), term
        before, rate = rate, min(12.0, max(rate / 2, _LEAST, rate - error))
        if abs(error) * d <= max(8.0, 0.002 * budget) or rate == before:
            break
    assert best is not None
    return best[1]


def cells_rate(budget: float, d: int, dtype: torch.dtype = torch.float32) -> float:
    """Bits an entry that a message of `budget` bits has for its symbols, by estimate; never less than a block's one
    entry costs.
    """
    header = 8 * (12 + 10 + 9 + scalar_nbytes(dtype) * len(block_sizes(d)))
    lanes = 32 * (4 if d < LARGEST else 16)
    rate = (budget - header) / d
    # Dense symbols carry the states of an entropy coder; the places of few are coded 2 % above their entropy.
    rate = rate - lanes / d if d >= 512 and rate - lanes / d >= 0.3 else 0.98 * rate
    return float(min(12.0, max(rate, _LEAST)))
