"""The shortest ladder: any deterministic compressor, and what it leaves over."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, decoded
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Code, Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats

__all__ = ["TwoLevelLadder"]


@register(
    "two_level", example="two_level(topk(k=0.1))", source="B1.8; Zukerman, Hamoud, Levy, ICML 2025, Definition 3.1"
)
@dataclass(frozen=True)
class TwoLevelLadder(Ladder):
    """A ladder of two levels: a compressor without randomness, then the vector itself.

    g¹ = A(v), g² = v, for a compressor A = `first` without randomness: it becomes unbiased.

    The price is that now and then the whole remainder is sent.

    With adaptive probabilities omega(v) = (‖A(v)‖ + ‖v − A(v)‖)² / ‖v‖² − 1. Where A projects and keeps the share α of
    the energy (Top-k), that is 2√(α(1−α)) <= 1 (B1.8), and with fixed ones 1; for others `omega` is what alpha(d) alone
    tells, where A has one.

    Args:
        first: A, a compressor without randomness, such as topk(k=0.01).

    References:
        Zukerman, Hamoud and Levy, "Beyond Communication Overhead: A Multilevel Monte Carlo Approach for Mitigating
            Compression Bias in Distributed Learning", 2025, https://arxiv.org/abs/2507.05508
    """

    first: Compressor

    values = "fp32"

    def __post_init__(self) -> None:
        check_that(not self.first.random, self, "first", "a compressor without randomness is allowed")

    def omega(self, d: int, adaptive: bool) -> float:
        if self.first.projects:
            alpha = self.first.alpha(d)
            return 2 * math.sqrt(alpha * (1 - alpha)) if adaptive and alpha > 0.5 else 1.0
        # A's scales, rounded to float32, move its estimate by 2^−24 of the norm.
        alpha = self.first.alpha(d)
        if alpha == 0.0:
            return math.inf
        left = math.sqrt(1 - alpha) + 2.0**-24
        return (1 + 2 * left) ** 2 - 1 if adaptive else 2 * ((1 + left) ** 2 + left**2) - 1

    def levels(self, v: Tensor) -> Levels:
        return _FirstAndRest(v, self.first)


class _FirstAndRest(Levels):
    def __init__(self, v: Tensor, first: Compressor) -> None:
        encoded = first._encode(v, Key())
        self.v, self.terms = v, tuple(term for term in encoded.terms if term.positions.n)
        self.head = decoded(encoded, v)
        self.rest = v.double() - self.head

    def norms(self) -> Tensor:
        return torch.stack([torch.linalg.vector_norm(part) for part in (self.head, self.rest)]).cpu()

    def costs(self) -> Tensor:
        exact = 64 if self.v.dtype == torch.float64 else 32
        first = Code((len(self.v),), self.v.dtype, self.terms).nbits
        return MESSAGE_OVERHEAD + torch.tensor([first, (exact + 2) * int((self.rest != 0).sum())], dtype=torch.float64)

    def fixed_probabilities(self) -> Tensor:
        return torch.tensor([0.5, 0.5], dtype=torch.float64)

    def base(self) -> tuple[Term, ...]:
        return ()

    def residual(self, level: int) -> tuple[Term, ...]:
        if level == 1:
            return self.terms
        which = self.rest.nonzero().squeeze(1)
        return (Term(IndexSet(len(self.v), which), Floats(self.rest[which])),)
