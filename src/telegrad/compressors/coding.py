"""How the values of a sparse message are coded: `values=fp32|bf16|log|sign` (B2.7). Each coding is unbiased by itself.

fp32: the tensor's own precision (32 bits for float32; float64 tensors keep 64 bits and 16-bit ones 16); what that
cannot hold is rounded stochastically. bf16: rounded stochastically to bfloat16. log: rounded stochastically to a
signed power of two (A11), about two bits. sign: with m = max |v|, an entry is kept with probability |v| / m and sent
as its sign, m once.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.quantising.exponents import rounded_to_powers
from telegrad.kernels.quantising.narrowing import narrowed
from telegrad.kernels.quantising.signs import LEAST, signs_in_proportion
from telegrad.kernels.reference import binary_exponent, power_of_two, rounding_variance
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.random import Key
from telegrad.wire.code import Term
from telegrad.wire.positions import All, IndexSet, Positions
from telegrad.wire.values import Bucketed, Exponents, Floats, Grid

__all__ = ["Coding", "code_values", "coding_omega", "coding_variance", "nonzero_term", "symbols_term"]

Coding = Literal["fp32", "bf16", "log", "sign"]


def nonzero_term(positions: Positions, v: Tensor, coding: Coding, dtype: torch.dtype, key: Key) -> Term:
    """The term that carries the non-zero ones of the float64 numbers `v` at `positions`.

    Subnormal float64 numbers (below 2^−1022) have no leading one and count as zero in the codings that need it.
    """
    if coding in ("bf16", "log"):  # the others have no need of it, or do it themselves
        coded = np.abs(plain(v)) >= LEAST
        if not coded.all():
            which = torch.from_numpy(np.flatnonzero(coded))
            positions, v = positions.keep(which), v[which.to(v.device)]
    return code_values(positions, v, coding, dtype, key)


def code_values(positions: Positions, v: Tensor, coding: Coding, dtype: torch.dtype, key: Key) -> Term:
    """The term that carries the float64 numbers `v` (non-zero, unless coding is fp32) in the given coding, without a
    bias.
    """
    if coding == "fp32" and v.dtype == dtype:
        return Term(positions, Floats(v))
    key = key.fold(role="values")
    if coding == "fp32":
        return Term(positions, Floats(v).rounded(dtype, key))
    if coding == "bf16":
        return Term(positions, Floats(narrowed(v, torch.bfloat16, key)))
    if coding == "log":
        return Term(positions, Exponents.of(*rounded_to_powers(v, key)))
    largest, drawn, signs = signs_in_proportion(v.cpu().numpy(), key)
    grid = Grid(torch.from_numpy(signs), largest, 1)
    return Term(positions.keep(torch.from_numpy(drawn)), grid.rounded(dtype, key.fold(role="scale")))


def symbols_term(symbol: Tensor, step: float) -> Term:
    """step · symbol for a vector of integers, in the shorter of two forms: all of them, for an entropy coder, where at
    least one in 16 of 512 or more is not zero; else the places, signs and magnitudes of those that are not.
    """
    d = len(symbol)
    if d >= 512 and int(symbol.count_nonzero()) >= d // 16:
        return Term(All(d), Bucketed(symbol, torch.tensor([step], dtype=torch.float64), d))
    which = symbol.nonzero().squeeze(1)
    return Term(All(d) if len(which) == d else IndexSet(d, which), Grid(symbol[which], step))


def coding_variance(v: Tensor, coding: Coding, dtype: torch.dtype) -> float:
    """E‖coded − v‖² of the float64 numbers `v`, exactly (the rounding of one float32 scale left out: below 2^−46 of
    it).
    """
    if coding == "fp32":
        return float(rounding_variance(v, dtype).sum())
    if coding == "bf16":
        return float(rounding_variance(v, torch.bfloat16).sum())
    if coding == "log":
        v = v[v.abs() >= 2.0**-1022]
        power = power_of_two(binary_exponent(v))
        fraction = v.abs() / power - 1
        return float((power.square() * fraction * (1 - fraction)).sum())
    magnitude = v.abs()
    return float((magnitude * (magnitude.max() - magnitude)).sum()) if len(v) else 0.0


_ROUNDING_OMEGA = {"fp32": 2.0**-48, "bf16": 2.0**-16, "log": 0.125}


def coding_omega(n: int, coding: Coding) -> float:
    """The worst relative variance of a coding of n values: 1/8 for log (A11.2), (√n − 1)/2 for sign (A10.2), rounding
    else.
    """
    return (n**0.5 - 1) / 2 if coding == "sign" else _ROUNDING_OMEGA[coding]
