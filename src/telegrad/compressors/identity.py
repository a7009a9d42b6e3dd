"""The identity: every entry as it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.random import Key
from telegrad.spec import register
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import Floats

__all__ = ["Identity"]


@register("identity", example="identity", source="A1; the uncompressed exchange")
@dataclass(frozen=True)
class Identity(Unbiased):
    """No compression: the vector itself in its own precision.

    C(x) = x, in x's own precision: omega = 0, alpha = 1.
    """

    random = False

    def omega(self, d: int) -> float:
        return 0.0

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        return Encoded((Term(All(len(v)), Floats(v.clone())),))

    def _variance(self, v: Tensor) -> float:
        return 0.0
