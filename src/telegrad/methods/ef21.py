"""EF21: workers send compressed differences to what the server already knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.methods.base import State, Step
from telegrad.methods.contractive import require_contractive
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.shift import accumulate, empty_estimate, send_difference
from telegrad.spec import register
from telegrad.wire.code import Code

__all__ = ["EF21"]


@register("ef21", example="ef21(topk(k=0.01))", source="C5; Richtárik, Sokolov, Fatkhullin 2021")
@dataclass(frozen=True)
class EF21(GradientMethod):
    """c_i = C(∇f_i(x) − g_i); g_i ← g_i + c_i; the estimate is g ← g + (1/M) Σ c_i = (1/M) Σ g_i (C5.1).

    All g_i start at zero, so the first message is C(∇f_i(x_0)) and no round is idle. Needs a contractive compressor.
    """

    compressor: Compressor

    def __post_init__(self) -> None:
        require_contractive(self, self.compressor)

    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        return {"known": torch.zeros(d, dtype=dtype)}

    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        code, known = send_difference(self.compressor, gradient, state["known"], step.uplink(rank))
        return code, {"known": known}

    def server_init(self, d: int, dtype: torch.dtype) -> State:
        return empty_estimate(d, dtype)

    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        return accumulate(codes, state)
