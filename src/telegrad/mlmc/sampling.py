"""Which levels a message carries, and how often: one or several draws, with or without replacement, or coupled (B11).

A design has inclusions π_l = E N_l, the expected number of times that level l is drawn. The estimator weighs a drawn
level by 1/π_l, so any design with π_l > 0 on the non-zero levels is unbiased; designs differ in the moments of the N_l.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.importance import optimal_threshold
from telegrad.kernels.random_numbers.weighted_draws import draw
from telegrad.random import Key

__all__ = [
    "Sampling",
    "drawn_levels",
    "draws_needed",
    "inclusions",
    "joint_moment",
    "second_moments",
    "spread_uniforms",
]

Sampling = Literal["independent", "poisson", "systematic", "coupled"]


def inclusions(weights: Tensor, sampling: Sampling, draws: float, costs: Tensor | None = None) -> Tensor:
    """π_l for levels of the given weights (>= 0, not all zero), float64, shape (L,); they add up to `draws` where they
    can.

    independent: draws · p. poisson, systematic: min(1, w_l / t), so that heavy levels are certain (B11.2).
    coupled: F_l = P(N >= l), 1 for the first level and non-increasing; adjacent levels are pooled until w²/cost falls
    (B11.3), at one cost for all where none are given.
    """
    if sampling == "independent":
        plain = weights.numpy()
        return torch.from_numpy(draws * plain / plain.sum())
    if sampling == "coupled":
        return _coupled(weights.square(), draws, torch.ones_like(weights) if costs is None else costs)
    threshold = optimal_threshold(weights, draws)
    return (weights / threshold).clamp(max=1.0) if threshold else (weights > 0).double()


def _coupled(squares: Tensor, draws: float, costs: Tensor) -> Tensor:
    pools: list[tuple[float, float, int]] = []
    last = int(squares.nonzero()[-1])
    for level in range(1, last + 1):
        pool = (float(squares[level]), float(costs[level]), 1)
        while pools and pool[0] * pools[-1][1] >= pools[-1][0] * pool[1]:
            before = pools.pop()
            pool = (before[0] + pool[0], before[1] + pool[1], before[2] + pool[2])
        pools.append(pool)
    rates = torch.tensor([math.sqrt(energy / cost) for energy, cost, size in pools for _ in range(size)]).double()
    reach = torch.zeros_like(squares)
    reach[0] = 1.0
    if last:
        threshold = optimal_threshold(rates, draws - 1)
        reach[1 : last + 1] = (rates / threshold).clamp(max=1.0) if threshold else 1.0
    return reach


def draws_needed(sampling: Sampling, draws: float, count: int) -> int:
    """How many uniforms on [0, 1) a draw of `count` levels takes: one a draw, one a level (poisson), or one."""
    return round(draws) if sampling == "independent" else count if sampling == "poisson" else 1


def spread_uniforms(needed: int, shared: Key, rank: int, workers: int) -> np.ndarray:
    """Uniforms on [0, 1) that M workers coordinate: in every draw, worker i has (π(i) + U) / M with a permutation π and
    a U from the key that all share. Their levels are spread evenly, and each worker's alone is uniform (B12.1).
    """
    places = np.array([int(shared.fold(draw=draw).permutation(workers)[rank]) for draw in range(needed)])
    return (places + shared.uniform(needed).numpy()) / workers


def drawn_levels(pi: np.ndarray, sampling: Sampling, uniforms: np.ndarray) -> dict[int, int]:
    """N_l of every level l (from 1) that is drawn, in the order of levels; E N_l = π_l over `uniforms` on
    [0, 1), as many as `draws_needed`.
    """
    if sampling == "independent":
        drawn = [draw(pi, u) for u in uniforms.tolist()]
        return dict.fromkeys(drawn, 1) if len(drawn) == 1 else dict(sorted(Counter(drawn).items()))
    if sampling == "systematic":
        # Level l is drawn for every integer in (C_{l−1} − u, C_l − u].
        counts = np.diff(np.floor(np.append(0.0, pi.cumsum()) - uniforms)).astype(np.int64)
    else:  # one number for all levels (coupled), or one each
        counts = uniforms < pi
    return {level + 1: int(counts[level]) for level in counts.nonzero()[0].tolist()}


def second_moments(pi: Tensor, sampling: Sampling, draws: float) -> Tensor:
    """E N_l² / π_l², float64, shape (L,); 0 where π_l is."""
    inverse = torch.where(pi > 0, 1 / pi, 0.0)
    return inverse + (1 - 1 / draws) * (pi > 0) if sampling == "independent" else inverse


def joint_moment(pi: Tensor, sampling: Sampling, draws: float, first: int, second: int) -> float:
    """E N_l N_m / (π_l π_m) for two different levels of positive inclusion, counted from 0."""
    if sampling == "independent":
        return 1 - 1 / draws
    if sampling == "poisson":
        return 1.0
    if sampling == "coupled":
        return 1 / float(pi[min(first, second)])
    ends = pi.cumsum(0)
    arcs = [(float(ends[level] - pi[level]) % 1.0, float(pi[level])) for level in (first, second)]
    return _overlap(*arcs) / (arcs[0][1] * arcs[1][1])


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The length that two arcs (start in [0, 1), length <= 1) of a circle of length 1 share."""
    (a, length_a), (b, length_b) = one, other
    return sum(max(0.0, min(a + length_a, b + turn + length_b) - max(a, b + turn)) for turn in (-1, 0, 1))
