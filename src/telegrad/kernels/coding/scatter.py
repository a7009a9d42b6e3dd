"""Taking numbers from listed places, and adding to them: where an encoder's work on what it selected starts, and the
decoder's loop.

What is selected is a small share of a tensor. torch would share even that out over threads that must meet after every
operation, at the price of milliseconds where others use the cores: here one thread does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.device import with_gpu_form
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import in_chunks

__all__ = ["add_at", "narrow", "taken", "taken_times"]

_RANGE = 1 << 17  # entries that stay in the cache while all parts' numbers are added to them
_TOGETHER = 16  # parts that one compiled call takes
_1 = np.uint64(1)
_PLAIN = (torch.float32, torch.float64)


@lru_cache
def narrow(d: int) -> type[np.signedinteger[Any]]:
    """The type of places below d that wait for `add_at`: int32 where it holds them, since fresh memory costs more than
    what is written to it; int64 where d is small, since everything else takes it as it is.
    """
    return np.int32 if _RANGE < d <= 2**31 else np.int64


def taken(v: Tensor, index: Tensor) -> Tensor:
    """v[index] on the CPU; `v` flat, `index` int64."""
    if v.is_cuda or v.dtype == torch.bfloat16:
        return v[index.to(v.device)].cpu()
    return torch.from_numpy((v.detach() if v.requires_grad else v).numpy()[index.numpy()])


def taken_times(v: Tensor, index: Tensor, factor: float) -> Tensor:
    """factor · v[index] in float64, on the CPU."""
    if v.is_cuda or v.dtype not in _PLAIN:
        return taken(v, index).double() * factor
    out = np.empty(index.numel())
    _take((v.detach() if v.requires_grad else v).numpy(), index.numpy(), factor, out)
    return torch.from_numpy(out)


@with_gpu_form("scatter")
def add_at(out: Tensor, parts: Sequence[tuple[Tensor, Tensor]], weight: float) -> None:
    """out[index] += weight · numbers for all (index, numbers), one after the other, in place and in out's dtype; `out`
    flat, every index int64 or `narrow`, and increasing.

    Each thread goes through its share of `out` range by range, with all parts' entries of a range while that is in the
    cache: every entry's sum has the order of the parts.
    """
    if out.is_cuda or out.dtype not in _PLAIN:
        for index, numbers in parts:
            out.index_add_(0, index.to(out.device), numbers.to(device=out.device, dtype=out.dtype), alpha=weight)
        return
    flat = out.detach().numpy()
    factor = flat.dtype.type(weight)
    if len(flat) <= _RANGE:
        for index, numbers in parts:
            own = numbers.numpy() if numbers.dtype == out.dtype and numbers.is_cpu else _in_dtype(numbers, flat.dtype)
            _add(flat, (index.numpy(),), (own,), 0, len(flat), factor)
    else:
        made = [(index.numpy(), _in_dtype(numbers, flat.dtype)) for index, numbers in parts]
        for first in range(0, len(made), _TOGETHER):
            _share_out(flat, made[first : first + _TOGETHER], factor)


def _in_dtype(numbers: Tensor, dtype: np.dtype[Any]) -> np.ndarray:
    array = plain(numbers)
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):  # foreign messages may hold what the dtype cannot
        return array.astype(dtype)


def _share_out(out: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray]], weight: Any) -> None:
    """Every thread adds what the parts, up to _TOGETHER, have in its share."""
    # As many in every call, empty ones last, and of one type of integers: one compiled form serves all.
    integer = np.result_type(*(index for index, _ in parts))
    missing = _TOGETHER - len(parts)
    indices = tuple(index.astype(integer, copy=False) for index, _ in parts) + (np.empty(0, dtype=integer),) * missing
    numbers = tuple(own for _, own in parts) + (np.empty(0, dtype=out.dtype),) * missing
    in_chunks(lambda _, start, stop: _add(out, indices, numbers, start, stop, weight), len(out))


def _take_scalar(v, index, factor, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] = np.float64(v[index[i]]) * factor


def _take_reference(v: np.ndarray, index: np.ndarray, factor: float, out: np.ndarray) -> None:
    with np.errstate(over="ignore"):  # an estimate that overflows is refused when it is encoded
        np.multiply(v[index], factor, out=out, dtype=np.float64)


def _add_scalar(out, indices, numbers, start, stop, weight):  # type: ignore[no-untyped-def]
    """The numbers of all parts at places from `start` to `stop` − 1."""
    at = np.empty(len(indices), dtype=np.uint64)
    for part in range(len(indices)):
        at[part] = np.searchsorted(indices[part], start)
    for low in range(start, stop, _RANGE):
        high = min(stop, low + _RANGE)
        for part in range(len(indices)):
            index, own, i = indices[part], numbers[part], at[part]
            count = np.uint64(len(index))
            while i < count and index[i] < high:
                out[np.uint64(index[i])] += weight * own[i]
                i += _1
            at[part] = i


def _add_reference(
    out: np.ndarray,
    indices: Sequence[np.ndarray],
    numbers: Sequence[np.ndarray],
    start: int,
    stop: int,
    weight: Any,
) -> None:
    for index, own in zip(indices, numbers, strict=True):
        here = slice(*np.searchsorted(index, (start, stop)))
        out[index[here]] += weight * own[here]


_add = Loop(_add_scalar, _add_reference)
_take = Loop(_take_scalar, _take_reference)
