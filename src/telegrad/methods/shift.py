"""What the methods with a shift share: workers send compressed differences to what the server already knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import WireError
from telegrad.methods.base import State, mean_of, require_finite
from telegrad.random import Key
from telegrad.wire.code import Code, Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Grid

__all__ = ["accumulate", "empty_estimate", "number_beside", "send_difference", "with_number"]


def send_difference(compressor: Compressor, target: Tensor, known: Tensor, key: Key) -> tuple[Code, Tensor]:
    """c = C(target − known), and known + c, which the server knows once it has c."""
    code = compressor.encode(target - known, key)
    known = known.clone()
    code.add_to(known)
    return code, known


def with_number(code: Code, number: float) -> Code:
    """The code and a number beside it, of the code's dtype: the scale of a last term that has no entries."""
    nothing = torch.empty(0, dtype=torch.int64)
    return replace(code, terms=(*code.terms, Term(IndexSet(code.numel, nothing), Grid(nothing, number))))


def number_beside(code: Code) -> float:
    """The number that `with_number` put beside the code. Raises `WireError` where there is none."""
    values = code.terms[-1].values if code.terms else None
    if not isinstance(values, Grid) or values.n:
        raise WireError("the message has no number beside it")
    return values.scale


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
