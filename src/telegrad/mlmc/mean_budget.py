"""Bit planes by cost whose messages have a given number of bits on average, with the error that they have."""

from __future__ import annotations

from torch import Tensor

from telegrad.mlmc.estimator import MLMC
from telegrad.mlmc.fixed_point import FixedPointLadder
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD
from telegrad.mlmc.probabilities import level_probabilities
from telegrad.mlmc.sampling import inclusions
from telegrad.wire.code import Code

__all__ = ["planes_within"]

# What the entropy of a plane leaves out: the head of a term, and what gaps and symbols lose.
_TERM, _DEARER = 76.0, 1.007
_MOST_DRAWS = 4096


def planes_within(v: Tensor, budget: float) -> list[tuple[MLMC, float, float]]:
    """(mlmc(fixed_point, probabilities=cost, …), its mean bits, E‖C(v) − v‖²) for a flat, non-zero v on the CPU: as
    many independent draws as `budget` bits allow (B9.1), and planes drawn one by one, poisson, in expected number as
    many as fit (B11.2). Empty where not even the header fits.
    """
    left = budget - Code((len(v),), v.dtype).nbits
    if left <= 0:
        return []
    levels, ladder = FixedPointLadder().levels(v), FixedPointLadder()
    costs, squares = _DEARER * (levels.costs() - MESSAGE_OVERHEAD) + _TERM, levels.norms().square()
    law, energy = level_probabilities(levels, "cost"), float(v.double().square().sum())
    used, found = law > 0, []

    def independent(draws: int) -> float:
        return float(((1 - (1 - law) ** draws) * costs).sum())

    def poisson(draws: float) -> float:
        return float((inclusions(law, "poisson", draws) * costs).sum())

    fits, most = 0, _MOST_DRAWS
    while fits < most:
        count = (fits + most + 1) // 2
        fits, most = (count, most) if independent(count) <= left else (fits, count - 1)
    if fits:
        error = (float((squares[used] / law[used]).sum()) - energy) / fits
        found.append((MLMC(ladder, "cost", draws=float(fits)), budget - left + independent(fits), error))
    low, high = 0.0, float(used.sum())
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if poisson(middle) <= left else (low, middle)
    if low > 0:
        pi = inclusions(law, "poisson", low)
        error = float((squares[used] * (1 / pi[used] - 1)).sum())
        found.append((MLMC(ladder, "cost", draws=low, sampling="poisson"), budget - left + poisson(low), error))
    return found
