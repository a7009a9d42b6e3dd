"""The stream of a key inside compiled loops, so that no array of uniforms is ever made.

`uniform_bits` is one element of `telegrad.random.Key.uniform` before it becomes a float: element i is
`uniform_bits(offset, inner, i) · 2^−53`, with (offset, inner) = `np.uint64` of `key.words`. A loop that calls it by
this name lists it in its `Loop(…, uses=[uniform_bits])`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compiled import Loop, in_chunks
from telegrad.random import Key

__all__ = ["UNIT", "uniform_bits", "uniforms", "words"]

UNIT = 2.0**-53
"""What the integers of `uniform_bits` are multiplied by to lie in [0, 1); the product is exact."""

# Compiled code mixes signed and unsigned integers into floats: everything here is unsigned.
_ONE = np.uint64(1)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


def uniform_bits(offset, inner, i):  # type: ignore[no-untyped-def]
    """Element i of the stream as an integer below 2^53, uint64; `offset` and `inner` uint64, i any integer >= 0."""
    z = (np.uint64(i) + _ONE) * _GOLDEN + offset
    z = ((z ^ (z >> _30)) * _MIX_1) ^ inner
    z = (z ^ (z >> _27)) * _MIX_2
    return (z ^ (z >> _31)) >> _11


def words(key: Key) -> tuple[np.uint64, np.uint64]:
    """The words of a key in the type that `uniform_bits` takes."""
    offset, inner = key.words
    return np.uint64(offset), np.uint64(inner)


def uniforms(key: Key, n: int, start: int = 0) -> Tensor:
    """`key.uniform(n, start=start)`, float64 on the CPU, by all threads."""
    out = torch.empty(n, dtype=torch.float64)
    array, (offset, inner) = out.numpy(), words(key)
    if n:
        in_chunks(lambda _, low, high: _fill(array[low:high], offset, inner, start + low), n)
    return out


def _fill_scalar(out, offset, inner, start):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] = np.float64(uniform_bits(offset, inner, start + i)) * UNIT


def _fill_reference(out: np.ndarray, offset: np.uint64, inner: np.uint64, start: int) -> None:
    with np.errstate(over="ignore"):
        out[:] = uniform_bits(offset, inner, np.arange(start, start + len(out), dtype=np.uint64)) * UNIT


_fill = Loop(_fill_scalar, _fill_reference, uses=[uniform_bits])
