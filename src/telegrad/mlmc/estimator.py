"""MLMC: the unbiased estimator over any ladder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.compressors.coding import coding_omega, nonzero_term
from telegrad.compressors.inputs import checked
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels
from telegrad.mlmc.probabilities import Law, level_probabilities, weighed_probabilities
from telegrad.mlmc.sampling import Sampling, drawn_levels, draws_needed, inclusions, spread_uniforms
from telegrad.mlmc.variance import Design, estimator_variance
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats

__all__ = ["MLMC"]

_MOST_DRAWS = 65536  # each independent one takes memory


@register("mlmc", example="mlmc(stopk(s=0.01))", source="B1; Zukerman, Hamoud, Levy, ICML 2025, Algorithms 2 and 3")
@dataclass(frozen=True)
class MLMC(Unbiased):
    """Multilevel Monte Carlo compression: a random level of a ladder, weighted so that the mean over levels is exact.

    C(v) = g⁰ + (g^l − g^(l−1)) / p_l with level l drawn with probability p_l (B1.2): unbiased for every v.

    E‖C(v) − v‖² = Σ_l Δ_l² / p_l − ‖v − g⁰‖² (B1.4), least at p_l = Δ_l / ΣΔ, where it is (ΣΔ_l)² − ‖v − g⁰‖².

    Args:
        ladder: what comes in levels.
        probabilities: adaptive (the paper's Algorithm 3), fixed (Algorithm 2), or cost.
        base: so many first levels are always sent, as g⁰ (B11.1).
        draws: the expected number of other levels in a message.
        sampling: how they are drawn (B11.2, B11.3): independent draws, averaged (a whole number of them); poisson or
            systematic, without replacement, where a heavy level is certain; or coupled: all levels up to a random one.
        workers: above 1, that many workers (all: as many as there are) spread their levels evenly by a stream they
            share (B12.1): each one's law is unchanged, but their errors are no longer independent, and the mean's can
            be far smaller where gradients are alike.
        weight: with probabilities=cost, the c of the objective (c + ω) · bits that they minimise: 0 for error times
            bits, 1 where the noise of gradients dominates, M for M workers without it (B9.2); none is p ∝ Δ/√K, which
            is c = 1 where nothing is always sent (B9.1).

    References:
        Zukerman, Hamoud and Levy, "Beyond Communication Overhead: A Multilevel Monte Carlo Approach for Mitigating
            Compression Bias in Distributed Learning", 2025, https://arxiv.org/abs/2507.05508
    """

    ladder: Ladder
    probabilities: Law = "adaptive"
    base: int = 0
    draws: float = 1.0
    sampling: Sampling = "independent"
    workers: int | Literal["all"] = 1
    weight: float | None = None

    def __post_init__(self) -> None:
        counted = self.workers == "all" or self.workers >= 1
        check_that(counted, self, "workers", "a number of workers from 1, or all, is allowed")
        if self.weight is not None:
            check_that(
                self.weight >= 0 and self.probabilities == "cost",
                self,
                "weight",
                "a number from 0 is allowed, with probabilities=cost",
            )
        check_that(self.base >= 0, self, "base", "a number of levels from 0 is allowed")
        if self.sampling == "independent":
            check_that(self.draws >= 1 and self.draws == round(self.draws), self, "draws", "a whole number is allowed")
        elif self.sampling == "coupled":
            check_that(
                self.draws > 1, self, "draws", "coupled levels start with the first: a number above 1 is allowed"
            )
        else:
            check_that(self.draws > 0, self, "draws", "a number of levels above 0 is allowed")
        check_that(self.draws <= _MOST_DRAWS, self, "draws", f"a number up to {_MOST_DRAWS} is allowed")

    @property
    def looks_at(self) -> frozenset[str]:
        return frozenset() if self.workers == 1 else frozenset({"rank", "workers"})

    def omega(self, d: int) -> float:
        if self.sampling == "coupled":
            return math.inf  # finite for every vector, but not known to be bounded
        adaptive = self.probabilities != "fixed"
        if self.sampling != "independent" and self.probabilities != "cost":
            without = self.ladder.omega_of(d, adaptive, self.base, self.draws)
            if without is not None:
                return (1 + coding_omega(d, self.ladder.values)) * (1 + without) - 1
        tighter = self.ladder.omega_of(d, adaptive, self.base, None)
        exact = self.ladder.omega(d, adaptive) if tighter is None else tighter
        if self.probabilities == "cost":
            # Σ Δ√K · Σ Δ/√K <= (ΣΔ)² (κ+1)² / (4κ), κ² = K_max/K_min (Kantorovich); costs lie between a header and it
            # plus 66 d bits.
            spread = ((MESSAGE_OVERHEAD + 66 * d) / MESSAGE_OVERHEAD) ** 0.5
            exact = (1 + exact) * (spread + 1) ** 2 / (4 * spread) - 1
            if self.weight is not None:
                # The least (c + ω) · bits is no more than that of p ∝ Δ/√K, and bits differ by spread² at most.
                exact = (self.weight + exact) * spread**2 - self.weight
        if self.ladder.values != "sign":
            exact = (1 + coding_omega(d, self.ladder.values)) * (1 + exact) - 1
        if self.sampling == "independent":
            return exact / self.draws
        # E‖C(v) − v‖² <= Σ Δ_l²/π_l, times the number of levels in a systematic draw where residuals are not
        # orthogonal.
        together = math.ceil(self.draws) if self.sampling == "systematic" else 1
        return together * (1 + exact) / min(1.0, self.draws)

    def _weights(self, v: Tensor, levels: Levels) -> Tensor:
        """What the π_l of levels beyond the base are made from; float64, shape (L,)."""
        weights = level_probabilities(levels, self.probabilities)
        if self.weight is None or not bool(weights[self.base :].any()):
            return weights
        norms, costs, rest = levels.norms()[self.base :], levels.costs(), v.double().clone()
        always = (levels.base(), *(levels.residual(level) for level in range(1, min(self.base, len(costs)) + 1)))
        for term in (term for terms in always for term in terms):
            term.add_to(rest, -1.0)
        excess = float(rest.square().sum()) - self.weight * float(v.double().square().sum())
        costs = costs[self.base :] + float((costs[: self.base] - MESSAGE_OVERHEAD).sum())
        return torch.cat([weights[: self.base], weighed_probabilities(norms, costs, excess)])

    def _inclusions(self, v: Tensor, levels: Levels) -> Tensor:
        """π_l of all levels; 1 for those of the base."""
        weights, base = self._weights(v, levels), self.base
        if self._one_draw:  # the weights sum to one
            return weights
        rest = weights[base:] if base else weights
        if rest.numpy().any():
            costs = levels.costs()[base:] if self.probabilities == "cost" and self.sampling == "coupled" else None
            rest = inclusions(rest, self.sampling, self.draws, costs)
        return torch.cat([torch.ones_like(weights[:base]), rest]) if base else rest

    @cached_property
    def _one_draw(self) -> bool:
        """Whether one level is drawn from all of them."""
        return self.sampling == "independent" and self.draws == 1 and not self.base

    @cached_property
    def _by_ladder(self) -> bool:
        """Whether the ladder may draw by itself."""
        return self._one_draw and self.probabilities == "adaptive" and self.workers == 1

    def _drawn(self, pi: Tensor, key: Key) -> list[tuple[int, float]]:
        """The levels that a message carries, increasing, and the weight N_l / π_l of each."""
        base, law = min(self.base, len(pi)), pi.numpy()
        drawn = [(level, 1.0) for level in range(1, base + 1)]
        if law[base:].any():
            count = len(law) - base
            needed = draws_needed(self.sampling, self.draws, count)
            uniforms = self._uniforms(needed, key.fold(role="level"))
            counts = drawn_levels(law[base:], self.sampling, uniforms)
            drawn += [(base + level, count / float(law[base + level - 1])) for level, count in counts.items()]
        return drawn

    def _uniforms(self, needed: int, key: Key) -> np.ndarray:
        """This worker's uniforms on [0, 1)."""
        if self.workers == 1:
            return np.array([key.number()]) if needed == 1 else key.uniform(needed).numpy()
        rank, workers = self.context.place(None if self.workers == "all" else self.workers, self)
        return spread_uniforms(needed, self.context.shared(key), rank, workers)

    def on_gpu(self, v: Tensor) -> bool:
        return self.weight is None and self.ladder.on_gpu(v)

    def checks(self, v: Tensor) -> bool:
        return self.weight is None and self.ladder.checks(v)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        if self._by_ladder:
            found = self.ladder.drawn(v, key.fold(role="level"))
            if found is not None:
                level, term = found
                return Encoded((self._sendable(term, v.dtype, key.fold(term=0)),), level)
        levels = self.ladder.levels(v)
        drawn = self._drawn(self._inclusions(v, levels), key)
        terms = levels.joined(*drawn[0]) if len(drawn) == 1 else None
        if terms is None:
            residuals = [term.scaled(weight) for level, weight in drawn for term in levels.residual(level)]
            # Sign coding goes block by block, each with its own largest entry.
            together = residuals if self.ladder.values == "sign" else _merged(residuals)
            terms = (*levels.base(), *together)
        sendable = (self._sendable(term, v.dtype, key.fold(term=number)) for number, term in enumerate(terms))
        return Encoded(tuple(sendable), drawn[-1][0] if drawn else 0)

    def _sendable(self, term: Term, dtype: torch.dtype, key: Key) -> Term:
        if isinstance(term.values, Floats):
            return nonzero_term(term.positions, term.values.value, self.ladder.values, dtype, key)
        return Term(term.positions, term.values.rounded(dtype, key.fold(role="scale")))

    def enumerate_levels(self, v: Tensor) -> Iterator[tuple[float, Tensor]]:
        """(p_l, g⁰ + r_l / p_l) for every level with p_l > 0, as float64 vectors before value coding.

        Σ p_l · estimate_l = v. With several draws p_l is π_l / Σπ and r_l keeps the weight it has in a message, times
        Σπ: the same sum, since E N_l = π_l. `v`: flat and finite; of zero there are no levels. Meant for tests and for
        looking on.
        """
        scaled, shift = checked(v)
        if scaled is None:
            return
        levels, half = self.ladder.levels(scaled), shift // 2
        pi = self._inclusions(scaled, levels)
        base = torch.zeros(len(v), dtype=torch.float64)
        for term in levels.base():
            term.add_to(base, 1.0)
        for level in range(1, min(self.base, len(pi)) + 1):
            for term in levels.residual(level):
                term.add_to(base, 1.0)
        total = float(pi[self.base :].sum())
        chosen = (pi[self.base :].nonzero().squeeze(1) + self.base + 1).tolist()
        for level in chosen:
            estimate, weight = base.clone(), total / float(pi[level - 1])
            for term in levels.residual(level):
                term.add_to(estimate, weight)
            yield float(pi[level - 1]) / total, estimate * 2.0**half * 2.0 ** (shift - half)
        if not chosen:
            yield 1.0, base * 2.0**half * 2.0 ** (shift - half)

    def _variance(self, v: Tensor) -> float:
        levels = self.ladder.levels(v)
        design = Design(self._inclusions(v, levels), self.base, self.draws, self.sampling)
        return estimator_variance(v, levels, design, self.ladder.values)


def _merged(terms: list[Term]) -> list[Term]:
    """Terms of floats at listed places as one: a set of indices costs less than its parts."""
    parts = [(t.positions, t.values.value) for t in terms if isinstance(t.values, Floats)]
    listed = [(positions.index, value) for positions, value in parts if isinstance(positions, IndexSet)]
    if len(terms) < 2 or len(listed) < len(terms):
        return terms
    index = torch.cat([index for index, _ in listed])
    if len(index.unique()) < len(index):  # residuals that overlap stay apart
        return terms
    order = index.argsort()
    value = torch.cat([value for _, value in listed])
    return [Term(IndexSet(terms[0].positions.d, index[order]), Floats(value[order]))]
