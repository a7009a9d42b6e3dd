"""The hot loops in plain torch, on any device: the definition that faster backends must match byte for byte."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["binary_exponent", "power_of_two", "round_to_dtype", "round_to_integer", "rounding_variance"]

# (significand bits after the leading one, smallest exponent of a normal number)
_FORMATS = {torch.float32: (23, -126), torch.bfloat16: (7, -126), torch.float16: (10, -14)}


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent exactly, as float64; integer exponents from −1022 to 1023 (torch.ldexp goes through float32 here)."""
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)


def binary_exponent(v: Tensor) -> Tensor:
    """E with 2^E <= |v| < 2^(E+1) for float64 v, exact next to powers of two; −1023 or less for zero is never
    returned: zeros give 0.
    """
    return torch.where(v == 0, torch.zeros((), dtype=torch.int32), torch.frexp(v).exponent - 1)


def round_to_integer(y: Tensor, u: Tensor) -> Tensor:
    """Stochastic rounding of float64 y: floor(y) + 1 with probability y − floor(y), else floor(y); u uniform on [0,
    1).
    """
    low = y.floor()
    return low + (u < y - low)


def _ulp(v: Tensor, dtype: torch.dtype) -> Tensor:
    bits, lowest = _FORMATS[dtype]
    return power_of_two(binary_exponent(v).clamp(min=lowest) - bits)


def round_to_dtype(v: Tensor, dtype: torch.dtype, u: Tensor | None) -> Tensor:
    """float64 v rounded stochastically (unbiased) to the grid of `dtype`, to nearest where u is None; representable
    values stay.

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
