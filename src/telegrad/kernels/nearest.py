"""Rounding to the nearest point of a grid around zero."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compiled import Loop, in_chunks
from telegrad.kernels.magnitudes import plain

__all__ = ["nearest_even", "nearest_odd"]


def nearest_even(v: Tensor, step: float, top: int) -> Tensor:
    """The integers q next to v_j / step, halves to the even one, |q| <= top; the smallest signed type that holds them,
    on the CPU.
    """
    return _filled(v, step, top, 0.0)


def nearest_odd(v: Tensor, step: float, top: int) -> Tensor:
    """The odd integers q with q · step/2 next to v_j, the upper one where two are as near, |q| <= top; likewise."""
    return _filled(v, step, top, 0.5)


def _filled(v: Tensor, step: float, top: int, shift: float) -> Tensor:
    x = plain(v)
    out = np.empty(len(x), dtype=np.int8 if top < 128 else np.int16 if top < 32768 else np.int64)
    in_chunks(lambda _, a, b: _round(x[a:b], step, top, shift, out[a:b]), len(x))
    return torch.from_numpy(out)


def _round_scalar(x, step, top, shift, out):  # type: ignore[no-untyped-def]
    largest = np.float64(top)
    for i in range(len(x)):
        y = np.float64(x[i]) / step
        y = np.rint(y) if shift == 0.0 else 2.0 * np.floor(y) + 1.0
        out[i] = np.int64(min(max(y, -largest), largest))


def _round_reference(x: np.ndarray, step: float, top: int, shift: float, out: np.ndarray) -> None:
    y = x.astype(np.float64) / step
    y = np.rint(y) if shift == 0.0 else 2.0 * np.floor(y) + 1.0
    out[:] = np.clip(y, -top, top)


_round = Loop(_round_scalar, _round_reference)
