"""Taking numbers from listed places, and adding to them: where an encoder's work on what it selected starts, and the
decoder's loop.

What is selected is a small share of a tensor. torch would share even that out over threads that must meet after every
operation, at the price of milliseconds where others use the cores: here one thread does it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compiled import Loop
from telegrad.kernels.magnitudes import plain

__all__ = ["add_at", "taken", "zeros"]

_PLAIN = (torch.float32, torch.float64)
_IN_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.float16: np.float16}


def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros on the CPU, as fresh memory from the system: what is never touched costs nothing."""
    if dtype in _IN_NUMPY:
        return torch.from_numpy(np.zeros(shape, dtype=_IN_NUMPY[dtype]))
    return torch.zeros(shape, dtype=dtype)


def taken(v: Tensor, index: Tensor) -> Tensor:
    """v[index]; `v` flat, `index` int64."""
    if v.is_cuda or v.dtype == torch.bfloat16:
        return v[index.to(v.device)]
    return torch.from_numpy(v.detach().numpy()[index.numpy()])


def add_at(out: Tensor, index: Tensor, numbers: Tensor, weight: float) -> None:
    """out[index] += weight · numbers, in place and in out's dtype; `out` flat, the indices (int64) all different."""
    if out.is_cuda or out.dtype not in _PLAIN:
        out.index_add_(0, index.to(out.device), numbers.to(device=out.device, dtype=out.dtype), alpha=weight)
    else:
        flat, own = out.detach().numpy(), plain(numbers)
        if own.dtype != flat.dtype:
            with np.errstate(over="ignore"):  # foreign messages may hold what the dtype cannot
                own = own.astype(flat.dtype)
        _add(flat, plain(index), own, flat.dtype.type(weight))


def _add_scalar(out, index, numbers, weight):  # type: ignore[no-untyped-def]
    for i in range(len(index)):
        out[index[i]] += weight * numbers[i]


def _add_reference(out: np.ndarray, index: np.ndarray, numbers: np.ndarray, weight: Any) -> None:
    out[index] += weight * numbers


_add = Loop(_add_scalar, _add_reference)
