"""Scaled sign: one bit an entry and one scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.random import Key
from telegrad.spec import register
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import Grid

__all__ = ["Sign"]


@register("sign", example="sign", source="A13; Bernstein et al. 2018; Karimireddy et al. 2019")
@dataclass(frozen=True)
class Sign(Compressor):
    """C(x) = (‖x‖₁ / d) sign(x) with sign(0) = +1: contractive, error ‖x‖² − ‖x‖₁²/d, alpha >= 1/d (A13.1).

    The scale is the mean magnitude, rounded to float32 (float64 for float64 input).
    """

    unbiased = False
    random = False

    def omega(self, d: int) -> float:
        return math.inf

    def alpha(self, d: int) -> float:
        return 1 / d

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        signs = torch.where(v < 0, -1, 1)
        grid = Grid(signs, float(v.double().abs().mean())).rounded(v.dtype, None)
        return Encoded((Term(All(len(v)), grid),))

    def _variance(self, v: Tensor) -> float:
        x = v.double()
        return float(x.square().sum() - x.abs().sum() ** 2 / len(x))
