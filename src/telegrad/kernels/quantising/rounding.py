"""Stochastic rounding to multiples of a step, and back, in one pass each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.device import with_gpu_form
from telegrad.kernels.memory import room
from telegrad.kernels.random_numbers.uniforms import (
    FEW,
    STRIDE,
    UNIT,
    bits_at,
    state_at,
    uniform_source,
    uniforms_from,
)
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import in_chunks
from telegrad.random import Key

__all__ = ["rounded_to_steps", "symbol_dtype", "times_steps", "write_times"]

_PIECE = 65536


def _spread(steps: Tensor, bucket: int, n: int) -> tuple[np.ndarray, int]:
    """Steps and the length of their buckets; a single step is repeated, so that threads can share its bucket."""
    array = steps.cpu().numpy()
    return (np.repeat(array, -(-n // _PIECE)), _PIECE) if len(array) == 1 else (array, bucket)


def _rounded(value, step, u):  # type: ignore[no-untyped-def]
    y = abs(np.float64(value)) / step
    below = np.floor(y)
    magnitude = np.int64(below) + np.int64(u < y - below)
    return -magnitude if value < 0 else magnitude


def _round_scalar(x: Any, steps: Any, bucket: int, given: Any, offset: Any, inner: Any, first: int, out: Any) -> None:
    for low in range(0, len(x), bucket):
        step, part, symbols = steps[low // bucket], x[low : low + bucket], out[low : low + bucket]
        if len(given):
            for i in range(len(part)):
                symbols[i] = _rounded(part[i], step, given[first + low + i])
            continue
        state = state_at(offset, first + low)
        for i in range(len(part)):
            symbols[i] = _rounded(part[i], step, np.float64(bits_at(state, inner)) * UNIT)
            state += STRIDE


def _round_reference(
    x: np.ndarray,
    steps: np.ndarray,
    bucket: int,
    given: np.ndarray,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    out: np.ndarray,
) -> None:
    u = uniforms_from(given, offset, inner, first, len(x))
    y = np.abs(x.astype(np.float64)) / np.repeat(steps, bucket)[: len(x)]
    magnitude = (np.floor(y) + (u < y - np.floor(y))).astype(np.int64)
    out[:] = np.where(x < 0, -magnitude, magnitude)


def symbol_dtype(most: int) -> torch.dtype:
    """The smallest signed integer type for magnitudes up to `most` + 1."""
    return torch.int8 if most < 127 else torch.int16 if most < 32767 else torch.int64


@with_gpu_form("rounding")
def rounded_to_steps(v: Tensor, steps: Tensor, bucket: int, key: Key, most: int) -> Tensor:
    """sign(v_j) (⌊y_j⌋ + [u_j < y_j − ⌊y_j⌋]) for y_j = |v_j| / step of j's bucket, u the stream of the key.

    Buckets of `bucket` neighbours have one positive float64 step each. The result, on the CPU, has the dtype
    `symbol_dtype(most)`.
    """
    symbols = torch.empty(len(v), dtype=symbol_dtype(most))
    x, out = plain(v), symbols.numpy()
    of_buckets, bucket = _spread(steps, bucket, len(x))
    source = uniform_source(key, len(x), FEW)
    in_chunks(
        lambda _, low, high: _round(x[low:high], of_buckets[low // bucket :], bucket, *source, low, out[low:high]),
        len(x),
        bucket,
    )
    return symbols


def _times_scalar(symbols: Any, steps: Any, bucket: int, out: Any) -> None:
    for low in range(0, len(symbols), bucket):
        step, part, numbers = steps[low // bucket], symbols[low : low + bucket], out[low : low + bucket]
        for i in range(len(part)):
            numbers[i] = np.float64(part[i]) * step


def _times_reference(symbols: np.ndarray, steps: np.ndarray, bucket: int, out: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        out[:] = symbols.astype(np.float64) * np.repeat(steps, bucket)[: len(symbols)]


def times_steps(symbols: Tensor, steps: Tensor, bucket: int, dtype: torch.dtype) -> Tensor:
    """symbol_j · step of j's bucket, in float64 and then rounded to float32 or float64; where the symbols lie."""
    if symbols.is_cuda:
        each = steps.to(symbols.device, torch.float64)
        each = each if len(each) == 1 else each.repeat_interleave(bucket)[: len(symbols)]
        return (symbols.double() * each).to(dtype)
    out = room(len(symbols), dtype)
    array, whole = out.numpy(), symbols.cpu().numpy()
    of_buckets, bucket = _spread(steps, bucket, len(whole))
    in_chunks(
        lambda _, low, high: _times(whole[low:high], of_buckets[low // bucket :], bucket, array[low:high]),
        len(whole),
        bucket,
    )
    return out


def write_times(symbols: np.ndarray, steps: np.ndarray, bucket: int, out: np.ndarray) -> None:
    """`times_steps` into `out`, float32 or float64, by this thread alone."""
    _times(symbols, steps, bucket, out)


_round = Loop(_round_scalar, _round_reference, uses=[_rounded, state_at, bits_at])
_times = Loop(_times_scalar, _times_reference)
