"""auto: for each tensor, the unbiased compressor of a portfolio with the least predicted error at the bits allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.portfolio.choices import MOST_BITS, Portfolio
from telegrad.portfolio.families import Choice, least_bound
from telegrad.random import Key
from telegrad.spec import check_that, register

__all__ = ["Auto"]

_LEAST_BITS = 2.0**-12
_WITHIN = 13 / 12  # predictions of errors come true


@register("auto", example="auto(bits=0.5)", source="the portfolio of B14's strongest unbiased rows: A5, A7, A26 to A28")
@dataclass(frozen=True)
class Auto(Unbiased):
    """A portfolio: for each vector the unbiased compressor with the least predicted error at a given number of bits.

    For each vector, the unbiased compressor with the least predicted error at `bits` a coordinate; or, with `omega`
    instead, the fewest bits at which a predicted E‖C(x) − x‖² <= omega ‖x‖².

    It chooses among a kept head with a rotated tail, importance sampling, stochastic rounding, subtractive dithering
    and, for few entries, EDEN of fixed bits, from histograms of magnitudes. The message describes itself, so the choice
    needs no bit of its own. Where none is so short, the shortest is sent.
    `omega(d)` bounds the error for every x: 13/12, which predictions are right to, of the least constant of those that
    always fit; `variance` is the prediction for what is chosen. Unbiased as far as what it chooses is: exactly, but
    where rotations are taken (see eden).

    Args:
        bits: bits a coordinate that a message, or the mean of messages, may have.
        target: named `omega` in specs: the largest predicted E‖C(x) − x‖² / ‖x‖²; either this or bits is given.
        effort: trellises of 8 states, or of 256 (best), which save another 6 to 10 % of the rotated tail's error and
            take some ten times as long to encode; decoding is the same.
        budget: what `bits` are of: every message, or the mean over messages. Then MLMC over bit planes by cost is a
            choice, too, whose messages are mostly a few bytes, and now and then long; it errs less at very few bits of
            vectors with large entries.
    """

    bits: float | None = None
    target: float | None = field(default=None, metadata={"spec": "omega"})
    effort: Literal["fast", "best"] = "fast"
    budget: Literal["message", "mean"] = "message"

    exact = False

    def __post_init__(self) -> None:
        check_that((self.bits is None) != (self.target is None), self, "bits", "either bits or omega is wanted")
        if self.bits is not None:
            check_that(0 < self.bits <= MOST_BITS, self, "bits", "bits a coordinate above 0 and up to 12 are allowed")
        if self.target is not None:
            check_that(self.target > 0, self, "target", "an omega above 0 is allowed")

    @property
    def _states(self) -> Literal[8, 256]:
        return 8 if self.effort == "fast" else 256

    def _portfolio(self, v: Tensor) -> Portfolio:
        return Portfolio(v, self._states, self.budget == "mean")

    def choose(self, v: Tensor) -> Choice:
        """The choice for a flat, finite, non-zero vector."""
        if self.bits is not None:
            return self._portfolio(v).at(self.bits)[0]
        choices, goal = self._portfolio(v), float(self.target or 0.0) * float(v.double().square().sum())
        low, high = math.log2(_LEAST_BITS), math.log2(MOST_BITS)
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (low, middle) if choices.at(2.0**middle)[0].error <= goal else (middle, high)
        return choices.at(2.0**high)[0]

    def omega(self, d: int) -> float:
        if self.target is not None:
            return _WITHIN * float(self.target)
        return _WITHIN * least_bound(float(self.bits or 0) * d, d, self._states)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        choice = self.choose(v)
        return choice.encode(key) if choice.encode else choice.compressor._encode(v, key)

    def _variance(self, v: Tensor) -> float:
        return self.choose(v).compressor._variance(v)
