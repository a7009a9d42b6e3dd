"""The exact variance of an MLMC estimate, for every way of drawing levels."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.coding import Coding, coding_variance
from telegrad.mlmc.ladder import Levels
from telegrad.mlmc.sampling import Sampling, joint_moment, second_moments
from telegrad.wire.code import Term
from telegrad.wire.values import Floats

__all__ = ["Design", "estimator_variance"]


@dataclass(frozen=True)
class Design:
    """Inclusions π_l of all levels (1 for the first `base`), and how those beyond the base are drawn."""

    pi: Tensor
    base: int
    draws: float
    sampling: Sampling


def estimator_variance(v: Tensor, levels: Levels, design: Design, values: Coding) -> float:
    """E‖C(v) − v‖² = Σ_l E N_l²/π_l² A_l − Σ_l Δ_l² + Σ_{l≠m} (E N_l N_m / (π_l π_m) − 1) ⟨r_l, r_m⟩.

    N_l: how often level l is drawn; A_l: E‖what is sent for r_l‖² at weight 1, Δ_l² where values are exact. With one
    draw this is Σ Δ_l²/p_l − ‖v − g⁰‖² (B1.4). Float codings whose error depends on the weight are added level by
    level.
    """
    pi, base = design.pi, design.base
    squares = levels.second_moments()
    moments = torch.ones_like(pi)
    moments[base:] = second_moments(pi[base:], design.sampling, design.draws)
    rest = v.double().clone()
    _subtract(rest, levels.base())
    # Orthogonal residuals share out the energy, whatever the coding adds to `squares`.
    energies = squares if levels.orthogonal else levels.energies()
    energy = float(rest.square().sum()) if levels.orthogonal else float(energies.sum())
    total = float((moments * squares)[pi > 0].sum()) - energy
    if not levels.orthogonal:
        for level in range(1, min(base, len(pi)) + 1):
            _subtract(rest, levels.residual(level))
        total += _cross(levels, design, energies, rest)
    if values == "sign" or (values == "fp32" and v.dtype in (torch.float32, torch.float64)):
        return total
    sent = ((squares > 0) & (pi > 0)).nonzero().flatten().tolist()
    return total + math.fsum(_coding(levels, level, design, values, v.dtype) for level in sent)


def _subtract(out: Tensor, terms: tuple[Term, ...]) -> None:
    for term in terms:
        term.add_to(out, -1.0)


def _cross(levels: Levels, design: Design, energies: Tensor, rest: Tensor) -> float:
    """The terms of two different levels; `rest` = v − g^base."""
    pi, sampling = design.pi[design.base :], design.sampling
    if sampling == "poisson":
        return 0.0
    if sampling == "independent":
        return -float(rest.square().sum() - energies[design.base :].sum()) / design.draws
    drawn, vectors = pi.nonzero().flatten().tolist(), {}
    for level in drawn:
        vectors[level] = torch.zeros_like(rest)
        _subtract(vectors[level], levels.residual(design.base + level + 1))
    return 2 * math.fsum(
        (joint_moment(pi, sampling, design.draws, first, second) - 1) * float(vectors[first] @ vectors[second])
        for first, second in itertools.combinations(drawn, 2)
    )


def _coding(levels: Levels, level: int, design: Design, values: Coding, dtype: torch.dtype) -> float:
    floats = [term.values.value.double() for term in levels.residual(level + 1) if isinstance(term.values, Floats)]
    pi, law = float(design.pi[level]), [(1, float(design.pi[level]))]
    if level < design.base:
        law = [(1, 1.0)]
    elif design.sampling == "independent":
        n = round(design.draws)
        p = pi / n
        law = [(count, math.comb(n, count) * p**count * (1 - p) ** (n - count)) for count in range(1, n + 1)]
    return math.fsum(
        chance * coding_variance(value * (count / pi), values, dtype) for count, chance in law for value in floats
    )
