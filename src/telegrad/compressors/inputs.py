"""What is handed to a compressor: made flat, checked, and brought into the range where squares can be formed."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor as wrapped
from torch.nn import Parameter

from telegrad.compressors.unfit import holds_its_numbers, unfit
from telegrad.errors import NonFiniteError
from telegrad.kernels.statistics.magnitudes import largest_magnitude
from telegrad.wire.code import Term
from telegrad.wire.values import DTYPES

__all__ = ["checked", "flattened", "not_finite", "scaled_down", "scaled_up"]

_PLAIN = (Tensor, Parameter)


def flattened(x: Tensor) -> Tensor:
    """x flat and contiguous, a copy only where x is not. Raises `InputError` for what is no dense tensor of floats."""
    plain = isinstance(x, Tensor) and x.dtype in DTYPES and x.layout is torch.strided
    if not plain or x.is_meta or x.is_nested or wrapped(x) or (type(x) not in _PLAIN and not holds_its_numbers(x)):
        raise unfit(x)
    v = x.detach() if x.requires_grad else x
    return v if v.dim() == 1 and v.is_contiguous() and not v.is_neg() else v.reshape(-1).contiguous().resolve_neg()


def checked(x: Tensor) -> tuple[Tensor | None, int]:
    """x flat, and the binary shift taken out of it; None for a tensor without a non-zero entry.

    Only float64 inputs near the ends of their range are shifted, so that squares neither overflow nor vanish.
    """
    return scaled_down(flattened(x), x)


def scaled_down(v: Tensor, x: Tensor) -> tuple[Tensor | None, int]:
    """`checked(x)`, where v is x flat."""
    largest = largest_magnitude(v)
    if not math.isfinite(largest):
        raise not_finite(x)
    if largest == 0.0:
        return None, 0
    if v.dtype == torch.float64 and abs(shift := math.frexp(largest)[1]) > 400:
        half = -shift // 2
        return v * 2.0**half * 2.0 ** (-shift - half), shift
    return v, 0


def scaled_up(term: Term, shift: int) -> Term:
    """The term times 2**shift: what `scaled_down` took out."""
    half = shift // 2
    return term.scaled(2.0**half).scaled(2.0 ** (shift - half))


def not_finite(x: Tensor | np.ndarray) -> NonFiniteError:
    """The error for a tensor that cannot be compressed because not all of it is finite."""
    return NonFiniteError(
        f"the tensor of shape {tuple(x.shape)} holds NaN or infinity; skip this step or lower the learning rate"
    )
