"""Taking numbers from listed places, and adding to them: where an encoder's work on what it selected starts, and the
decoder's loop.

What is selected is a small share of a tensor. torch would share even that out over threads that must meet after every
operation, at the price of milliseconds where others use the cores: here one thread does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compiled import Loop, in_chunks
from telegrad.kernels.device import with_gpu_form
from telegrad.kernels.magnitudes import plain

__all__ = ["add_at", "taken", "taken_times", "zeros"]

_RANGE = 1 << 17
_PLAIN = (torch.float32, torch.float64)
_IN_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.float16: np.float16}


def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros on the CPU, as fresh memory from the system: what is never touched costs nothing.

    Raises `ValueError`, `MemoryError` or `RuntimeError` where there is no room for such a tensor.
    """
    if dtype in _IN_NUMPY:
        return torch.from_numpy(np.zeros(shape, dtype=_IN_NUMPY[dtype]))
    return torch.zeros(shape, dtype=dtype)


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
    flat, every index int64 and increasing.

    Each thread goes through its share of `out` range by range, with all parts' entries of a range while that is in the
    cache: every entry's sum has the order of the parts.
    """
    if out.is_cuda or out.dtype not in _PLAIN:
        for index, numbers in parts:
            out.index_add_(0, index.to(out.device), numbers.to(device=out.device, dtype=out.dtype), alpha=weight)
        return
    flat = out.detach().numpy()
    with np.errstate(over="ignore", invalid="ignore"):  # foreign messages may hold what the dtype cannot
        plain_parts = [(plain(index), plain(numbers).astype(flat.dtype, copy=False)) for index, numbers in parts]
        factor = flat.dtype.type(weight)

    def work(_: int, start: int, stop: int) -> None:
        edges = np.append(np.arange(start, stop, _RANGE), stop)
        cuts = [np.searchsorted(index, edges).tolist() for index, _ in plain_parts]
        for number in range(len(edges) - 1):
            for (index, numbers), cut in zip(plain_parts, cuts, strict=True):
                _add(flat, index, numbers, cut[number], cut[number + 1], factor)

    if len(flat) <= _RANGE:
        for places, own in plain_parts:
            _add(flat, places, own, 0, len(places), factor)
    else:
        in_chunks(work, len(flat))


def _take_scalar(v, index, factor, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] = np.float64(v[index[i]]) * factor


def _take_reference(v: np.ndarray, index: np.ndarray, factor: float, out: np.ndarray) -> None:
    with np.errstate(over="ignore"):  # an estimate that overflows is refused when it is encoded
        np.multiply(v[index], factor, out=out, dtype=np.float64)


def _add_scalar(out, index, numbers, start, stop, weight):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        out[np.uint64(index[i])] += weight * numbers[i]


def _add_reference(out: np.ndarray, index: np.ndarray, numbers: np.ndarray, start: int, stop: int, weight: Any) -> None:
    out[index[start:stop]] += weight * numbers[start:stop]


_add = Loop(_add_scalar, _add_reference)
_take = Loop(_take_scalar, _take_reference)
