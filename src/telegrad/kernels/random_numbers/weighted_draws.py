"""Laws over a few thousand levels: probabilities in proportion to weights, and a draw from them."""

from __future__ import annotations

import numpy as np

from telegrad.kernels.compilation import Loop

__all__ = ["draw", "proportional"]

_LEAST = 2.0**-1000  # of the largest: never drawn in practice, and 1/p would overflow


def proportional(weights: np.ndarray) -> np.ndarray:
    """p ∝ weights (float64, shape (L,), >= 0), summing to 1; zero where a weight is below 2^−1000 of the largest, and
    everywhere where all are zero.
    """
    law = np.empty_like(weights)
    _proportional(weights, law)
    return law


def proportional_scalar(weights, law):  # type: ignore[no-untyped-def]
    largest, total = 0.0, 0.0
    for level in range(len(weights)):
        largest = max(largest, weights[level])
    law[:] = 0.0
    if largest == 0.0:
        return
    for level in range(len(weights)):
        share = weights[level] / largest
        if share >= _LEAST:
            law[level] = share
            total += share
    for level in range(len(weights)):
        law[level] /= total


def _proportional_reference(weights: np.ndarray, law: np.ndarray) -> None:
    largest = weights.max(initial=0.0)
    law[:] = weights / (largest if largest > 0.0 else 1.0)
    law[law < _LEAST] = 0.0
    if largest > 0.0:
        law /= np.cumsum(law)[-1]  # cumulated, because that has one order


def draw(law: np.ndarray, u: float) -> int:
    """The level (from 1) that u, uniform on [0, 1), draws by inversion; never one of probability zero. `law`: weights
    that need not sum to 1, not all zero.
    """
    return int(_draw(law, u))


def draw_scalar(law, u):  # type: ignore[no-untyped-def]
    total = 0.0
    for level in range(len(law)):
        total += law[level]
    reached, last = 0.0, 0
    for level in range(len(law)):
        reached += law[level]
        if law[level] > 0.0:
            last = level
            if reached > u * total:
                break
    return last + 1  # the last one where the product was rounded up to the whole sum


def _draw_reference(law: np.ndarray, u: float) -> int:
    cumulative = law.cumsum()
    level = min(int(cumulative.searchsorted(u * cumulative[-1], side="right")), len(law) - 1)
    while law[level] == 0.0:
        level -= 1
    return level + 1


_proportional = Loop(proportional_scalar, _proportional_reference)
_draw = Loop(draw_scalar, _draw_reference)
