"""The hot loops in plain torch, on any device: the definition that faster backends must match byte for byte."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "FORMATS",
    "binary_exponent",
    "descending_order",
    "power_of_two",
    "round_to_dtype",
    "round_to_integer",
    "rounding_variance",
    "sorted_descending",
    "steady_sum",
]

FORMATS = {torch.float32: (23, -126), torch.bfloat16: (7, -126), torch.float16: (10, -14)}
"""Significand bits after the leading one, and the smallest exponent of a normal number."""


def steady_sum(terms: Tensor) -> float:
    """Σ of a flat tensor: torch's sums of every 32768, then theirs. Of more, torch has threads share one sum, whose
    order then depends on their number.
    """
    return math.fsum(float(part.sum()) for part in terms.split(2**15))


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent exactly, as float64; integer exponents from −1022 to 1023 (torch.ldexp goes through float32 here)."""
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)


def binary_exponent(v: Tensor) -> Tensor:
    """E with 2^E <= |v| < 2^(E+1) for float64 v, int32, exact next to powers of two; 0 for zeros."""
    return torch.where(v == 0, torch.zeros((), dtype=torch.int32), torch.frexp(v).exponent - 1)


def round_to_integer(y: Tensor, u: Tensor) -> Tensor:
    """Stochastic rounding of float64 y: floor(y) + 1 with probability y − floor(y), else floor(y); u uniform on [0,
    1).
    """
    low = y.floor()
    return low + (u < y - low)


def _ulp(v: Tensor, dtype: torch.dtype) -> Tensor:
    bits, lowest = FORMATS[dtype]
    return power_of_two(binary_exponent(v).clamp(min=lowest) - bits)


def round_to_dtype(v: Tensor, dtype: torch.dtype, u: Tensor | None) -> Tensor:
    """float64 v on the grid of `dtype`: rounded stochastically (unbiased), to nearest where u is None.

    Beyond the largest finite value the result is infinite.
    """
    if dtype == torch.float64:
        return v
    if u is None:
        return v.to(dtype)
    ulp = _ulp(v, dtype)
    return (round_to_integer(v / ulp, u) * ulp).to(dtype)


def rounding_variance(v: Tensor, dtype: torch.dtype) -> Tensor:
    """The exact variance of `round_to_dtype(v, dtype, u)`, entry by entry: ulp² f (1 − f), f the fraction cut off."""
    if dtype == torch.float64:
        return torch.zeros_like(v)
    ulp = _ulp(v, dtype)
    fraction = (v / ulp) - (v / ulp).floor()
    return ulp.square() * fraction * (1 - fraction)


def descending_order(v: Tensor) -> Tensor:
    """The indices of v's entries by decreasing magnitude, equal magnitudes in the order of their indices; int64.

    Magnitude bits above and index below make one integer an entry (for up to 32-bit floats), so that an unstable sort
    of plain integers, which is several times faster than a stable sort of floats with indices, has no ties to decide.
    """
    if v.dtype == torch.float64 or len(v) >= 2**31:
        return torch.sort(v.abs(), descending=True, stable=True).indices
    falling = 0x7FFFFFFF - v.float().abs().view(torch.int32).to(torch.int64)
    keys = falling << 32 | torch.arange(len(v), device=v.device)
    ordered = keys.sort().values if keys.is_cuda else torch.from_numpy(np.sort(keys.numpy()))
    return ordered & 0xFFFFFFFF


def sorted_descending(values: Tensor) -> Tensor:
    """The values in decreasing order; numpy's vectorised sort on the CPU, where torch's is several times slower."""
    if values.is_cuda:
        return values.sort(descending=True).values
    return torch.from_numpy(np.sort(_plain(values))).to(values.dtype).flip(0)


def _plain(values: Tensor) -> np.ndarray:
    return (values if values.dtype in (torch.float32, torch.float64) else values.float()).numpy()
