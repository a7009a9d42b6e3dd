"""Composition: one compressor after another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded, decoded
from telegrad.compressors.composing import decoded_parts, representable
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import Positions

__all__ = ["Compose"]

_DRAWS = 32


@register("compose", example="compose(natural, randk(k=0.1))", source="0.8; Horváth et al. 2019, section 3")
@dataclass(frozen=True)
class Compose(Compressor):
    """A composition: an unbiased compressor applied to the result of another.

    C(x) = A(B(x)), A = `outer` unbiased, B = `inner`, with independent randomness. Sent is A's message only.

    Unbiased where B is, with omega = (1 + omega_A)(1 + omega_B) − 1 (0.8); else alpha = alpha_B − omega_A (1 +
    √(1 − alpha_B))² where that is positive. Where B drew its places from a seed, A's places are told within these.

    `variance` is B's plus E var_A(B(x)): exact where B is deterministic or var_A a multiple of the energy (Rand-k).
    Otherwise no closed form exists, and var_A(B)/‖B‖² is averaged over 32 fixed draws of B.

    Args:
        outer: A, unbiased.
        inner: B, any compressor.

    References:
        Horváth et al., "Natural Compression for Distributed Deep Learning", 2019, https://arxiv.org/abs/1905.10988
    """

    outer: Compressor
    inner: Compressor

    def __post_init__(self) -> None:
        check_that(self.outer.unbiased, self, "outer", "an unbiased compressor is allowed")

    @property
    def unbiased(self) -> bool:
        return self.inner.unbiased

    @property
    def exact(self) -> bool:
        return self.outer.exact and self.inner.exact

    @property
    def random(self) -> bool:
        return self.outer.random or self.inner.random

    def omega(self, d: int) -> float:
        return (1 + self.outer.omega(d)) * (1 + self.inner.omega(d)) - 1 if self.unbiased else math.inf

    def alpha(self, d: int) -> float:
        if self.unbiased:
            return super().alpha(d)
        # E‖AB − x‖² = E‖B − x‖² + E var_A(B) <= (1 − alpha) ‖x‖² + omega_A E‖B‖².
        alpha = self.inner.alpha(d)
        return max(0.0, alpha - self.outer.omega(d) * (1 + math.sqrt(1 - alpha)) ** 2)

    def _between(self, v: Tensor, key: Key) -> tuple[Encoded, Tensor]:
        inner = self.inner.encoded(v, key.fold(role="inner"))
        return inner, representable(decoded_parts(inner, v), len(v), v.dtype, key.fold(role="between"), self)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        inner, dense = self._between(v, key)
        outer = self.outer.encoded(dense, key.fold(role="outer"))
        places = inner.terms[0].positions if len(inner.terms) == 1 else None
        return Encoded(tuple(_within(places, term) for term in outer.terms), inner.level or outer.level)

    def _mean(self, v: Tensor) -> Tensor:
        return self.inner._mean(v)

    def _variance(self, v: Tensor) -> float:
        x, of_inner, mean = v.double(), self.inner.variance(v), self.inner._mean(v)
        # In float64, where no draw overflows: the rounding between the two is left out.
        keys = [Key().fold(draw=draw) for draw in range(_DRAWS if self.inner.random else 1)]
        draws = [decoded(self.inner.encoded(x, key), x) for key in keys]
        # E‖B‖² is known, so only the ratio of var_A(B) to it is left to the draws: never above omega_A.
        energy = sum(float(draw.square().sum()) for draw in draws)
        of_outer = sum(self.outer.variance(draw) for draw in draws)
        if energy == 0.0:
            energy, of_outer = float(x.square().sum()), self.outer.variance(v)
        expected = of_inner - float((mean - x).square().sum()) + float(mean.square().sum())
        return of_inner + of_outer / energy * expected


def _within(places: Positions | None, term: Term) -> Term:
    """The same term, its places told as some of `places` where they are and that is shorter."""
    index, among = term.positions.indices(), places.indices() if places else None
    if places is None or index is None or among is None:
        return term
    told = places
    if not torch.equal(index, among):
        where = torch.searchsorted(among, index).clamp(max=len(among) - 1)
        if not bool((among[where] == index).all()):
            return term
        told = places.keep(where)
    return Term(told, term.values) if told.nbytes < term.positions.nbytes else term
