"""The refinement ladder: successive refinements of the rotated vector by trellis codes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from telegrad.kernels.quantising.rounding import rounded_to_steps
from telegrad.kernels.rotation.blocks import LARGEST
from telegrad.kernels.rotation.hadamard import Rotation, rotate
from telegrad.kernels.statistics.magnitudes import sums_of_squares
from telegrad.kernels.threads import kept
from telegrad.kernels.trellis.codes import position_at, trellis_omega
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import Bucketed, Floats, RotatedCells
from telegrad.wire.values.rotated import Rotated
from telegrad.wire.values.trellis import TrellisCells

__all__ = ["RefinementLadder"]

_SEED = 0  # any rotation is as unbiased as any other: the sum over the levels is the vector
_STEP = 1.65  # of the grid of the last level, in deviations: the least second moment times entropy for normal numbers
_ENTROPY, _MOMENT = 1.594, 1.453  # of such numbers, rounded stochastically to that grid


@register(
    "refinement",
    example="refinement(bits=1)",
    source="A28, B1; Equitz, Cover, IEEE Transactions on Information Theory 1991 (successive refinement)",
)
@dataclass(frozen=True)
class RefinementLadder(Ladder):
    """The refinement ladder: the vector is rotated, and each level codes what the level before left over.

    r_l = Rᵀ (S_b q_b) with q_b the path of a trellis of `states` at `bits` bits an entry through block b of what is
    left of R v, and S_b = ⟨q_b, e_b⟩ / ‖q_b‖², l = 1 … `refinements`. One more level is all that is left: rounded
    stochastically to a grid of 1.65 deviations, 1.6 bits an entry, so that its mean is exact.

    R is one random rotation for all vectors of a length: the mean is exact for every vector under every rotation. Each
    residual is orthogonal to all that is left, so Σ‖r_l‖² = ‖v‖², and as rotated entries are nearly normal,
    E‖C(v) − v‖² is about the same for all vectors: (ΣΔ_l)² − ‖v‖² with Δ_l² = D^(l−1) (1 − D) ‖v‖², D the code's
    distortion of N(0, 1), and 1.45 D^L ‖v‖² for the last. That is also the law of `probabilities=fixed`.

    With levels enough, codes on the rate-distortion curve have 1 + ω = 2.89 / R at R mean bits an entry (the limit of
    (Σ Δ_l √K_l)² for ever finer levels, the least there is), where a random rotation without levels (`eden`) can have
    1 / (1 − 4^−R). The rounded last level costs no more than many levels in its place: few refinements are best.

    Args:
        bits: bits an entry of each trellis code, .05 to 6.
        refinements: levels before the exact one, 1 to 24.
        states: of the trellis: 8 or 256.

    References:
        Equitz and Cover, "Successive Refinement of Information", 1991, https://doi.org/10.1109/18.75242
    """

    bits: float = 1.0
    refinements: int = 2
    states: Literal[8, 256] = 8

    values = "fp32"

    def __post_init__(self) -> None:
        check_that(0.05 <= self.bits <= 6, self, "bits", "bits an entry from .05 to 6 are allowed")
        check_that(1 <= self.refinements <= 24, self, "refinements", "a number of refinements from 1 to 24 is allowed")

    def omega(self, d: int, adaptive: bool) -> float:
        # ‖v‖² is shared out among the levels; rounding adds at most a quarter of a step's square an entry.
        worst = torch.ones(self.refinements + 1, dtype=torch.float64)
        worst[-1] += _STEP**2 / 4
        return float(worst.sum() if adaptive else (worst / self.law()).max()) - 1

    def predicted_moments(self) -> Tensor:
        """Δ_l² / ‖v‖² of normal entries, the last one with what rounding adds; float64, shape (L,)."""
        omega = float(trellis_omega(self.states, self.bits))
        left = (omega / (1 + omega)) ** torch.arange(self.refinements + 1, dtype=torch.float64)
        return torch.cat([-left.diff(), left[-1:] * _MOMENT])

    def law(self) -> Tensor:
        """The probabilities of the levels that do not look at the vector."""
        norms = self.predicted_moments().sqrt()
        return norms / norms.sum()

    def levels(self, v: Tensor) -> Levels:
        return _Refinements(v, self)


class _Refinements(Levels):
    def __init__(self, v: Tensor, ladder: RefinementLadder) -> None:
        self.d, self.ladder = len(v), ladder
        self.rotation, self.position = Rotation(self.d, _SEED), position_at(ladder.states, ladder.bits)
        self.left = [rotate(v.cpu().double(), _SEED)]  # after each of the levels that were made
        self.made: list[RotatedCells] = []

    def norms(self) -> Tensor:
        return self.second_moments().sqrt()

    def energies(self) -> Tensor:
        self._after(self.ladder.refinements)
        squares = torch.stack([left.square().sum() for left in self.left])
        return torch.cat([-squares.diff(), squares[-1:]]).clamp(min=0.0)

    def second_moments(self) -> Tensor:
        return self._moments

    @kept
    def _moments(self) -> Tensor:
        moments, rest = self.energies(), self._after(self.ladder.refinements)
        steps = _grid_steps(rest).repeat_interleave(LARGEST)[: self.d]
        fraction = torch.where(steps > 0, rest.abs() / steps, 0.0) % 1.0
        moments[-1] += (steps.square() * fraction * (1 - fraction)).sum()
        return moments

    def costs(self) -> Tensor:
        scales = 32 * len(self.rotation.sizes)
        each = torch.full((self.ladder.refinements + 1,), self.d * self.ladder.bits + scales, dtype=torch.float64)
        each[-1] = self.d * _ENTROPY + 32 * -(-self.d // LARGEST)
        return MESSAGE_OVERHEAD + each

    def fixed_probabilities(self) -> Tensor:
        return self.ladder.law()

    def base(self) -> tuple[Term, ...]:
        return ()

    def residual(self, level: int) -> tuple[Term, ...]:
        left, everywhere = self._after(min(level, self.ladder.refinements)), All(self.d)
        if level <= self.ladder.refinements:
            return (Term(everywhere, self.made[level - 1]),)
        return (Term(everywhere, _Remainder(everywhere, Floats(left), _SEED)),)

    def _after(self, level: int) -> Tensor:
        """What so many refinements leave of the rotated vector."""
        while len(self.made) < level:
            self._refine(self.left[-1])
        return self.left[level]

    def _refine(self, left: Tensor) -> None:
        sizes, cells = self.rotation.sizes, TrellisCells.blank(self.d, self.ladder.states, self.position)
        normal = torch.cat([_normalised(block) for block in left.split(sizes)]).float().numpy()
        for start in range(0, self.d, LARGEST):  # short blocks share a segment
            cells.code.quantise(normal[start : start + LARGEST], cells.symbol.numpy()[start : start + LARGEST])
        numbers = cells.numbers().split(sizes)
        scales = torch.stack([_projection(q, block) for q, block in zip(numbers, left.split(sizes), strict=True)])
        coded = torch.cat([scale * q for scale, q in zip(scales, numbers, strict=True)])
        self.made.append(RotatedCells(All(self.d), cells, _SEED, scales))
        self.left.append(left - coded)


def _normalised(block: Tensor) -> Tensor:
    """Of mean square 1; zeros stay."""
    deviation = block.square().mean().sqrt()
    return block / deviation if float(deviation) > 0 else block


def _projection(q: Tensor, e: Tensor) -> Tensor:
    """⟨q, e⟩ / ‖q‖², 0 where q is."""
    energy = q.square().sum()
    return (q @ e) / energy if float(energy) > 0 else energy


def _grid_steps(rest: Tensor) -> Tensor:
    """The step of every 65536 entries; 0 where all of them are."""
    counts = torch.tensor([len(part) for part in rest.split(LARGEST)], dtype=torch.float64)
    return _STEP * (sums_of_squares(rest, LARGEST) / counts).sqrt()


class _Remainder(Rotated):
    """Floats in the rotated domain, of which a message carries multiples of a step instead, right in the mean."""

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Rotated:
        numbers, own = self.values.numbers(), key or Key()
        steps = _grid_steps(numbers)
        positive = torch.where(steps > 0, steps, 1.0)
        most = int(math.sqrt(min(len(numbers), LARGEST)) / _STEP) + 1  # no entry exceeds the root of the squares' sum
        symbol = rounded_to_steps(numbers, positive, LARGEST, own.fold(role="symbols"), most)
        values = Bucketed(symbol, steps, LARGEST).rounded(dtype, own.fold(role="steps"))
        return Rotated(self.positions, values, self.seed)
