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
from telegrad.kernels.device import with_gpu_form
from telegrad.kernels.magnitudes import plain

__all__ = ["add_at", "taken"]

_PLAIN = (torch.float32, torch.float64)


def taken(v: Tensor, index: Tensor, widened: bool = True) -> Tensor:
    """v[index] on the CPU, `widened` to float64 or in v's own dtype; `v` flat, `index` int64."""
    if v.is_cuda or v.dtype not in _PLAIN:
        chosen = v[index.to(v.device)].cpu()
        return chosen.double() if widened else chosen
    numbers = v.detach().numpy()[index.numpy()]
    return torch.from_numpy(numbers.astype(np.float64) if widened else numbers)


@with_gpu_form("scatter")
def add_at(out: Tensor, index: Tensor, numbers: Tensor, weight: float) -> None:
    """out[index] += weight · numbers, in place and in out's dtype; `out` flat, the indices (int64) all different."""
    if out.is_cuda or out.dtype not in _PLAIN:
        out.index_add_(0, index.to(out.device), numbers.to(device=out.device, dtype=out.dtype), alpha=weight)
    else:
        flat = out.detach().numpy()
        with np.errstate(over="ignore"):  # foreign messages may hold what the dtype cannot
            own = plain(numbers).astype(flat.dtype, copy=False)
        _add(flat, index.cpu().numpy(), own, flat.dtype.type(weight))


def _add_scalar(out, index, numbers, weight):  # type: ignore[no-untyped-def]
    for i in range(len(index)):
        out[index[i]] += weight * numbers[i]


def _add_reference(out: np.ndarray, index: np.ndarray, numbers: np.ndarray, weight: Any) -> None:
    out[index] += weight * numbers


_add = Loop(_add_scalar, _add_reference)
