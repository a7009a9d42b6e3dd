"""What the methods with a shift share: workers send compressed differences to what the server already knows of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.methods.base import State, mean_of, require_finite
from telegrad.random import Key
from telegrad.wire.code import Code

__all__ = ["accumulate", "empty_estimate", "send_difference"]


def send_difference(compressor: Compressor, target: Tensor, known: Tensor, key: Key) -> tuple[Code, Tensor]:
    """c = C(target − known), and known + c, which the server knows once it has c."""
    code = compressor.encode(target - known, key)
    known = known.clone()
    code.add_to(known)
    return code, known


def empty_estimate(d: int, dtype: torch.dtype) -> State:
    """The server's state before the first message: an estimate of zero."""
    return {"estimate": torch.zeros(d, dtype=dtype)}


def accumulate(codes: Sequence[Code], state: State, share: float = 1.0) -> tuple[Tensor, State]:
    """The estimate plus the mean of the codes over all workers, as estimate and as next state; `share`: the part of all
    workers that sent these codes.
    """
    estimate = state["estimate"] + mean_of(codes, share)
    require_finite(estimate.to(codes[0].dtype))
    return estimate, {"estimate": estimate}
