"""The vectors that are looked at: real numbers, all finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from telegrad.errors import InputError

__all__ = ["flat_vector"]


def flat_vector(v: Any, what: str = "v") -> Tensor:
    """The tensor as a flat vector, detached. Raises `InputError` for what is no dense tensor, or not of real,
    finite numbers.
    """
    if not isinstance(v, Tensor):
        raise InputError(f"{what} is of type {type(v).__name__}: a tensor is wanted")
    if v.is_complex() or v.dtype == torch.bool:
        raise InputError(f"{what} is a tensor of {v.dtype}: one of real numbers is wanted")
    if v.layout != torch.strided:
        raise InputError(f"{what} is a tensor of layout {v.layout}: a dense one is wanted, such as v.to_dense()")
    flat = v.detach().reshape(-1)
    if not bool(flat.isfinite().all()):
        raise InputError(
            f"{what}, a tensor of shape {tuple(v.shape)}, holds NaN or infinity: finite entries are wanted"
        )
    return flat
