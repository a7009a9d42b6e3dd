"""The induced compressor: a contractive first part, and an unbiased second one on what the first leaves over."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded, Unbiased, decoded
from telegrad.compressors.composing import decoded_parts, representable
from telegrad.kernels.reference import rounding_variance
from telegrad.random import Key
from telegrad.spec import check_that, register

__all__ = ["Induced"]


@register("induced", example="induced(topk(k=0.1), randk(k=0.1))", source="E; Horváth, Richtárik, ICLR 2021")
@dataclass(frozen=True)
class Induced(Unbiased):
    """The induced compressor: a biased compressor made unbiased by an unbiased one on its error.

    C(x) = A(x) + B(x − A(x)): unbiased with omega = omega_B (1 − alpha_A) (E1, E2); variance: B's at the remainder.

    `first` (A) is deterministic, `second` (B) unbiased. A is decoded as it is sent, so that B makes up for the rounding
    of A's scales, too; the remainder is rounded stochastically to x's dtype where that cannot hold it.

    Args:
        first: A, without randomness, such as topk(k=0.01).
        second: B, unbiased, such as randk(k=0.01).

    References:
        Horváth and Richtárik, "A Better Alternative to Error Feedback for Communication-Efficient Distributed
            Learning", 2021, https://arxiv.org/abs/2006.11077
    """

    first: Compressor
    second: Compressor

    def __post_init__(self) -> None:
        check_that(not self.first.random, self, "first", "a compressor without randomness is allowed")
        check_that(self.second.unbiased, self, "second", "an unbiased compressor is allowed")

    @property
    def exact(self) -> bool:
        return self.second.exact

    @property
    def random(self) -> bool:
        return self.second.random

    def omega(self, d: int) -> float:
        # A's scale, rounded to float32, moves its estimate by 2^−24 of x's norm at most.
        remainder = math.sqrt(1 - self.first.alpha(d)) if self.first.alpha(d) < 1 else 0.0
        return self.second.omega(d) * (remainder + (2.0**-24 if remainder else 0.0)) ** 2

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        first = self.first.encoded(v, key)
        made = decoded_parts(first, v)

        def left(start: int, stop: int) -> Tensor:
            return v[start:stop].double() - made(start, stop)

        rest = representable(left, len(v), v.dtype, key.fold(role="rest"), self)
        second = self.second.encoded(rest, key.fold(role="second"))
        return Encoded((*first.terms, *second.terms), second.level)

    def _variance(self, v: Tensor) -> float:
        rest = v.double() - decoded(self.first.encoded(v, Key()), v)
        return self.second.variance(rest.to(v.dtype)) + float(rounding_variance(rest, v.dtype).sum())
