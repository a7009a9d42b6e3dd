"""Numbers rounded stochastically to a shorter dtype, without a bias."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.random_numbers.uniforms import uniform_at, uniform_source, uniforms_from
from telegrad.kernels.reference import FORMATS, round_to_dtype
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.random import Key

__all__ = ["narrowed", "narrowed_number"]

_LARGEST = {dtype: torch.finfo(dtype).max for dtype in FORMATS}


def narrowed(v: Tensor, dtype: torch.dtype, key: Key | None, start: int = 0) -> Tensor:
    """The numbers v, any float dtype, on the grid of `dtype`: `round_to_dtype` with `key.uniform`, element by element
    from number `start` on; to nearest without a key. Beyond the largest finite value the result is infinite.
    """
    if key is None or dtype == torch.float64:
        return v.to(dtype)
    if v.is_cuda:
        return round_to_dtype(v.double(), dtype, key.uniform(v.numel(), start=start, device=v.device).view(v.shape))
    # What has few enough bits for a shorter dtype has them for float32.
    wide = plain(v).astype(np.float64, copy=False)
    out = np.empty(wide.size, dtype=np.float32)
    source = uniform_source(key, wide.size, 0) if start else uniform_source(key, wide.size)
    _narrow(wide.reshape(-1), *source, start, *FORMATS[dtype], out)
    rounded = torch.from_numpy(out) if v.dim() == 1 else torch.from_numpy(out).view(v.shape)
    return rounded if dtype == torch.float32 else rounded.to(dtype)


def narrowed_number(value: float, dtype: torch.dtype, key: Key | None) -> float:
    """`narrowed` of one number."""
    if dtype == torch.float64 or not math.isfinite(value):
        return value
    if key is None:
        return float(torch.tensor(value, dtype=dtype))
    # In plain arithmetic: for a single number arrays cost more.
    bits, lowest = FORMATS[dtype]
    below = max(math.frexp(value)[1] - 1, lowest) - bits
    y = math.ldexp(value, -below)
    low = math.floor(y)
    rounded = math.ldexp(low + (y > low and key.number() < y - low), below)
    return rounded if abs(rounded) <= _LARGEST[dtype] else math.copysign(math.inf, rounded)


def _narrow_scalar(v, given, offset, inner, start, bits, lowest, out):  # type: ignore[no-untyped-def]
    exponents = v.view(np.int64)
    power = np.empty(2, dtype=np.int64)
    factors = power.view(np.float64)
    for i in range(len(v)):
        below = max(((exponents[i] >> 52) & 0x7FF) - 1023, lowest) - bits
        power[0] = (below + 1023) << 52
        power[1] = (1023 - below) << 52
        y = v[i] * factors[1]
        low = np.floor(y)
        if uniform_at(given, offset, inner, start + i) < y - low:
            low += 1.0
        out[i] = low * factors[0]


def _narrow_reference(
    v: np.ndarray,
    given: np.ndarray,
    offset: np.uint64,
    inner: np.uint64,
    start: int,
    bits: int,
    lowest: int,
    out: np.ndarray,
) -> None:
    dtype = next(dtype for dtype, form in FORMATS.items() if form == (bits, lowest))
    u = uniforms_from(given, offset, inner, start, len(v))
    out[:] = round_to_dtype(torch.from_numpy(v), dtype, torch.from_numpy(u)).float().numpy()


_narrow = Loop(_narrow_scalar, _narrow_reference, uses=[uniform_at])
