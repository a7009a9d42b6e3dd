"""EF21-SGDM: EF21 over a worker's momentum, for stochastic gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.methods.base import State, Step
from telegrad.methods.ef21_momentum import EF21Momentum
from telegrad.methods.shift import send_difference
from telegrad.spec import register
from telegrad.wire.code import Code

__all__ = ["EF21SGDM"]


@register("ef21_sgdm", example="ef21_sgdm(topk(k=0.01), momentum=0.1)", source="C6; Fatkhullin, Tyurin, Richtárik 2023")
@dataclass(frozen=True)
class EF21SGDM(EF21Momentum):
    """EF21-SGDM: EF21 with momentum on each worker, for stochastic gradients.

    v_i ← (1 − η) v_i + η ∇f_i(x, ξ_i); c_i = C(v_i − g_i); g_i ← g_i + c_i; the estimate is g ← g + (1/M) Σ c_i
    (C6.1).

    η is `momentum`: 1 gives EF21 with stochastic gradients. v_i starts as the first gradient and g_i at zero: the first
    message is C(∇f_i(x_0, ξ_i)), not a dense one. Needs a contractive compressor.

    Args:
        compressor: a contractive one, such as topk(k=0.01).
        momentum: η in (0, 1].

    References:
        Fatkhullin, Tyurin and Richtárik, "Momentum Provably Improves Error Feedback!", 2023,
            https://arxiv.org/abs/2305.15155
    """

    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        zero = torch.zeros(d, dtype=dtype)
        return {"known": zero, "average": zero, "steps": torch.zeros((), dtype=torch.int64)}

    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        # The first gradient is the average; counted here and not by step.index, since a first step may be skipped.
        eta = self.momentum if int(state["steps"]) else 1.0
        average = (1 - eta) * state["average"] + eta * gradient
        code, known = send_difference(self.compressor, average, state["known"], step.uplink(rank))
        return code, {"known": known, "average": average, "steps": state["steps"] + 1}
