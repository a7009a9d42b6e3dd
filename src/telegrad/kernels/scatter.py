"""Adding numbers at listed places: the decoder's loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compiled import Loop

__all__ = ["add_at"]


def add_at(out: Tensor, index: Tensor, numbers: Tensor, weight: float) -> None:
    """out[index] += weight · numbers, in place and in out's dtype; `out` flat, the indices (int64) all different."""
    if out.is_cuda or out.dtype not in (torch.float32, torch.float64):
        out.index_add_(0, index, numbers, alpha=weight)
    else:
        flat = out.detach().numpy()
        _add(flat, index.numpy(), numbers.numpy(), flat.dtype.type(weight))


def _add_scalar(out, index, numbers, weight):  # type: ignore[no-untyped-def]
    for i in range(len(index)):
        out[index[i]] += weight * numbers[i]


def _add_reference(out: np.ndarray, index: np.ndarray, numbers: np.ndarray, weight: Any) -> None:
    out[index] += weight * numbers


_add = Loop(_add_scalar, _add_reference)
