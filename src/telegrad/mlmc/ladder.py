"""The contract of a ladder: a compressor that comes in levels of rising fidelity.

A new ladder is one file: a frozen dataclass that says, for a vector, what the residual of each level is, how large and
how dear. Probabilities, the draw, the 1/p weights, value coding and packing are the estimator's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from telegrad.compressors.coding import Coding
from telegrad.compressors.shortcuts import Shortcuts
from telegrad.context import Contextual
from telegrad.mlmc.returned import LEVELS, looked_at_ladder
from telegrad.random import Key
from telegrad.spec import wrap_own
from telegrad.wire.code import Term

__all__ = ["MESSAGE_OVERHEAD", "Ladder", "Levels", "geometric_probabilities"]

MESSAGE_OVERHEAD = 128.0
"""Bits of a message that do not depend on the level: header, checksum, counts and a scale. Part of every K_l."""


class Levels(ABC):
    """A ladder applied to one flat, finite, non-zero vector v of d entries: base g⁰ and residuals r_l = g^l − g^(l−1),
    l = 1 … L.

    g⁰ + Σ_l r_l = v exactly (to float64 rounding): the top level is v itself. Terms are exact here, in float64; the
    estimator weighs and rounds them.

    `orthogonal`: whether ⟨r_l, r_m⟩ = 0 for l ≠ m, which spares the variance its cross terms; False unless a ladder
    says so.
    """

    orthogonal: bool = False

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        wrap_own(cls, LEVELS)

    @abstractmethod
    def norms(self) -> Tensor:
        """Δ_l = ‖r_l‖, or the root of E‖what is sent for r_l‖² where the value coding adds to it; float64, shape (L,).

        Approximations are allowed: they cost variance, never bias. Must be positive where r_l ≠ 0.
        """

    def second_moments(self) -> Tensor:
        """E‖what is sent for r_l at weight 1‖², exactly, where `norms` approximates its root; float64, shape (L,)."""
        return self.norms().square()

    def energies(self) -> Tensor:
        """‖r_l‖², exactly: less than `second_moments` where the value coding adds to it; float64, shape (L,). Asked for
        only where residuals are not orthogonal.
        """
        return self.second_moments()

    @abstractmethod
    def costs(self) -> Tensor:
        """K_l, about how many bits a message of level l takes; float64, shape (L,), positive."""

    @abstractmethod
    def fixed_probabilities(self) -> Tensor:
        """The probabilities of `probabilities=fixed`, which do not look at v; float64, shape (L,), positive, summing
        to 1.
        """

    @abstractmethod
    def base(self) -> tuple[Term, ...]:
        """g⁰, always sent; empty where g⁰ = 0."""

    @abstractmethod
    def residual(self, level: int) -> tuple[Term, ...]:
        """r_l exactly, 1 <= level <= L; terms may be empty."""

    def joined(self, level: int, weight: float) -> tuple[Term, ...] | None:
        """g⁰ + weight · r_l in one, where that has a form shorter than base and residual apart; None (the default)
        where not.
        """
        return None


class Ladder(Contextual, Shortcuts, ABC):
    """A named ladder with its configuration: `stopk(s=0.01)`, `fixed_point`, `floating_point`, `rtn`."""

    kind: ClassVar[str] = "ladder"

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        wrap_own(cls, {"levels": looked_at_ladder})

    @property
    @abstractmethod
    def values(self) -> Coding:
        """How residuals that are floats are coded."""

    @abstractmethod
    def omega(self, d: int, adaptive: bool) -> float:
        """A bound on E‖estimate − v‖² / ‖v‖² over all v of d entries with adaptive or fixed probabilities, exact
        values.
        """

    def omega_of(self, d: int, adaptive: bool, base: int, draws: float | None) -> float | None:
        """A tighter bound where the first `base` levels are always sent, of one draw or, with `draws` given, of so many
        expected ones without replacement: for ladders whose residuals are orthogonal; None where none is known.
        """
        return None

    def drawn(self, v: Tensor, key: Key) -> tuple[int, Term] | None:
        """The level l that the key's number draws by adaptive probabilities, and r_l / p_l: what comes of `levels`,
        where the ladder has it in fewer steps for a short v; None (the default) where not.
        """
        return None

    @abstractmethod
    def levels(self, v: Tensor) -> Levels:
        """Apply to a flat, non-zero vector of shape (d,), any float dtype: finite, unless this `checks`."""


def geometric_probabilities(count: int) -> Tensor:
    """p_l = 2^−l / (1 − 2^−count), l = 1 … count: the non-adaptive law of the bit-plane ladders (B3.3)."""
    p = 2.0 ** -torch.arange(1, count + 1, dtype=torch.float64)
    return p / p.sum()
