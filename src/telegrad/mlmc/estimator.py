"""MLMC: the unbiased estimator over any ladder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded, checked
from telegrad.compressors.coding import coding_omega, coding_variance, nonzero_term
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels
from telegrad.mlmc.probabilities import Law, draw_level, level_probabilities
from telegrad.random import Key
from telegrad.spec import register
from telegrad.wire.code import Term
from telegrad.wire.values import Floats

__all__ = ["MLMC"]


@register("mlmc", example="mlmc(stopk(s=0.01))", source="B1; Zukerman, Hamoud, Levy, ICML 2025, Algorithms 2 and 3")
@dataclass(frozen=True)
class MLMC(Compressor):
    """C(v) = g⁰ + (g^l − g^(l−1)) / p_l with level l drawn with probability p_l (B1.2): unbiased for every v.

    E‖C(v) − v‖² = Σ_l Δ_l² / p_l − ‖v − g⁰‖² (B1.4), least at p_l = Δ_l / ΣΔ, where it is (ΣΔ_l)² − ‖v − g⁰‖².
    `ladder`: what comes in levels; `probabilities`: adaptive (the paper's Algorithm 3), fixed (Algorithm 2), or cost.
    """

    ladder: Ladder
    probabilities: Law = "adaptive"

    unbiased = True
    random = True

    def omega(self, d: int) -> float:
        exact = self.ladder.omega(d, adaptive=self.probabilities != "fixed")
        if self.probabilities == "cost":
            # Σ Δ√K · Σ Δ/√K <= (ΣΔ)² (κ+1)² / (4κ), κ² = K_max/K_min (Kantorovich); costs lie between a header and it
            # plus 66 d bits.
            spread = ((MESSAGE_OVERHEAD + 66 * d) / MESSAGE_OVERHEAD) ** 0.5
            exact = (1 + exact) * (spread + 1) ** 2 / (4 * spread) - 1
        if self.ladder.values == "sign":
            return exact
        return (1 + coding_omega(d, self.ladder.values)) * (1 + exact) - 1

    def alpha(self, d: int) -> float:
        return max(0.0, 1 - self.omega(d))

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        levels = self.ladder.levels(v)
        p = level_probabilities(levels, self.probabilities)
        level = draw_level(p, float(key.fold(role="level").uniform(1)))
        return Encoded(self._estimate(levels, level, 1 / float(p[level - 1]), v.dtype, key), level)

    def _estimate(self, levels: Levels, level: int, weight: float, dtype: torch.dtype, key: Key) -> tuple[Term, ...]:
        terms = levels.joined(level, weight)
        if terms is None:
            terms = (*levels.base(), *(term.scaled(weight) for term in levels.residual(level)))
        return tuple(self._sendable(term, dtype, key.fold(term=number)) for number, term in enumerate(terms))

    def _sendable(self, term: Term, dtype: torch.dtype, key: Key) -> Term:
        if isinstance(term.values, Floats):
            return nonzero_term(term.positions, term.values.value, self.ladder.values, dtype, key)
        return Term(term.positions, term.values.rounded(dtype, key.fold(role="scale")))

    def enumerate_levels(self, v: Tensor) -> Iterator[tuple[float, Tensor]]:
        """(p_l, g⁰ + r_l / p_l) for every level with p_l > 0, as float64 vectors before value coding: Σ p_l ·
        estimate_l = v.

        `v`: flat and finite; of zero there are no levels. Meant for tests and for looking at what is drawn.
        """
        scaled, shift = checked(v)
        if scaled is None:
            return
        levels, half = self.ladder.levels(scaled), shift // 2
        p = level_probabilities(levels, self.probabilities)
        for level in (p.nonzero().squeeze(1) + 1).tolist():
            estimate = torch.zeros(len(v), dtype=torch.float64)
            probability = float(p[level - 1])
            terms = levels.joined(level, 1 / probability)
            for term in levels.base() if terms is None else terms:
                term.add_to(estimate, 1.0)
            for term in levels.residual(level) if terms is None else ():
                term.add_to(estimate, 1 / probability)
            yield probability, estimate * 2.0**half * 2.0 ** (shift - half)

    def _variance(self, v: Tensor) -> float:
        levels = self.ladder.levels(v)
        p, norms = level_probabilities(levels, self.probabilities), levels.norms()
        rest = v.double().clone()
        for term in levels.base():
            term.add_to(rest, -1.0)
        drawn = (norms > 0) & (p > 0)
        variance = float((norms[drawn].square() / p[drawn]).sum() - rest.square().sum())
        if self.ladder.values == "sign" or (self.ladder.values == "fp32" and v.dtype in (torch.float32, torch.float64)):
            return variance
        return variance + sum(
            self._coding_variance(levels, level, float(p[level - 1]), v.dtype)
            for level in (drawn.nonzero() + 1).flatten().tolist()
        )

    def _coding_variance(self, levels: Levels, level: int, p: float, dtype: torch.dtype) -> float:
        floats = [term.values.value.double() for term in levels.residual(level) if isinstance(term.values, Floats)]
        return p * sum(coding_variance(value / p, self.ladder.values, dtype) for value in floats)
