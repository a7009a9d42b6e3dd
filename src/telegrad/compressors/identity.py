"""The identity: every entry as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.compressors.inputs import not_finite
from telegrad.kernels.statistics.magnitudes import largest_magnitude
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

    def checks(self, v: Tensor) -> bool:
        return True

    def on_gpu(self, v: Tensor) -> bool:
        return True

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        largest = largest_magnitude(v)
        if not math.isfinite(largest):
            raise not_finite(v)
        return Encoded((Term(All(len(v)), Floats(v.clone(), largest)),))

    def _variance(self, v: Tensor) -> float:
        return 0.0
