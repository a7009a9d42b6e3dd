"""SRHT: random coordinates of the randomly rotated vector."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.kernels.rotation.hadamard import rotated_at
from telegrad.random import Key
from telegrad.spec import Amount, check_amount, register, resolve_amount
from telegrad.wire.code import Term
from telegrad.wire.positions import All, Subset
from telegrad.wire.values import Floats, Rotated

__all__ = ["SRHT"]


@register("srht", example="srht(k=0.01)", source="A21; Ailon and Chazelle 2009; Tropp 2011")
@dataclass(frozen=True)
class SRHT(Unbiased):
    """SRHT: a random subset of the coordinates of a randomly rotated vector, rotated back.

    C(x) = (d/k) Rᵀ P_S R x: k random coordinates S of the rotated vector, times d/k, rotated back.

    Unbiased, omega = d/k − 1, and the variance is (d/k − 1) ‖x‖² for every x: a rotation does not change Rand-k's
    (A21). It spreads the error evenly. Two seeds are sent instead of indices, values in the tensor's precision, rounded
    stochastically (for 16-bit tensors that adds up to 2^−16 of the second moment).

    Args:
        k: a count, or a fraction of d.

    References:
        Ailon and Chazelle, "The Fast Johnson–Lindenstrauss Transform and Approximate Nearest Neighbors", 2009,
            https://doi.org/10.1137/060673096
        Tropp, "Improved Analysis of the Subsampled Randomized Hadamard Transform", 2011,
            https://arxiv.org/abs/1011.1595
    """

    k: Amount

    def __post_init__(self) -> None:
        check_amount(self, "k")

    def omega(self, d: int) -> float:
        return d / resolve_amount(self, "k", d) - 1

    def on_gpu(self, v: Tensor) -> bool:
        return True

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d = len(v)
        k = resolve_amount(self, "k", d)
        seed = key.fold(role="rotation").to_int()
        positions = Subset(d, k, key.fold(role="subset").to_int())
        chosen = rotated_at(v, seed, positions.indices()) * (d / k)
        values = Rotated(positions, Floats(chosen), seed).rounded(v.dtype, key)
        return Encoded((Term(All(d), values),))

    def _variance(self, v: Tensor) -> float:
        return self.omega(len(v)) * float(v.double().square().sum())
