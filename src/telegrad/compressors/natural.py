"""Natural compression: every entry becomes a power of two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.compressors.coding import code_values, coding_variance
from telegrad.kernels.quantising.exponents import has_exponent
from telegrad.kernels.statistics.magnitudes import largest_magnitude, plain
from telegrad.random import Key
from telegrad.spec import register
from telegrad.wire.code import Term
from telegrad.wire.positions import All, IndexSet, marked
from telegrad.wire.values import Floats

__all__ = ["Natural"]


@register("natural", example="natural", source="A11; Horváth et al. 2019")
@dataclass(frozen=True)
class Natural(Unbiased):
    """Natural compression: stochastic rounding of every entry to a neighbouring power of two.

    |x_j| = 2^E (1 + f) goes to 2^(E+1) with probability f, else to 2^E; signs and zeros stay (A11.1).

    Unbiased; variance Σ 4^E f (1 − f); omega = 1/8, attained at f = 1/3 (A11.2). Exact next to powers of two and for
    subnormal numbers, for E and f are read off the float. Entries of the dtype's top binade, which could only go up to
    infinity, are sent as they are (in float64 this is refused as overflow, and numbers
    below 2^−1022 count as zero). Sent: a sign an entry, and its exponent,
    coded.

    References:
        Horváth et al., "Natural Compression for Distributed Deep Learning", 2019, https://arxiv.org/abs/1905.10988
    """

    def omega(self, d: int) -> float:
        return 0.125

    def _parts(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Which entries are of the top binade, and which are all the other non-zero ones."""
        # A float64 tensor near the top comes scaled down to 1; its overflow shows only when it is scaled back.
        limit, rest = torch.finfo(v.dtype).max / 2, has_exponent(v)
        if largest_magnitude(v) <= limit:
            return torch.zeros(1, dtype=torch.bool).expand(len(v)), rest
        top = v.abs() > limit
        return top, rest & ~top

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        top, rest = self._parts(v)
        if bool(rest.all()):
            return Encoded((code_values(All(len(v)), v, "log", v.dtype, key),))
        coded = code_values(marked(rest.numpy()), torch.from_numpy(plain(v)[rest.numpy()]), "log", v.dtype, key)
        beyond = top.nonzero().squeeze(1)
        return Encoded((coded, Term(IndexSet(len(v), beyond), Floats(v[beyond]))))

    def _variance(self, v: Tensor) -> float:
        return coding_variance(v[self._parts(v)[1]].double(), "log", v.dtype)
