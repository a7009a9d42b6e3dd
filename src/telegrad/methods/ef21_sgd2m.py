"""EF21-SGD2M: EF21 over a momentum of a momentum, for stochastic gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.methods.base import State, Step
from telegrad.methods.ef21_momentum import EF21Momentum
from telegrad.methods.shift import send_difference
from telegrad.spec import register
from telegrad.wire.code import Code

__all__ = ["EF21SGD2M"]


@register(
    "ef21_sgd2m", example="ef21_sgd2m(topk(k=0.01), momentum=0.1)", source="C6; Fatkhullin, Tyurin, Richtárik 2023"
)
@dataclass(frozen=True)
class EF21SGD2M(EF21Momentum):
    """EF21-SGD2M: EF21 with a momentum of the momentum on each worker.

    v_i ← (1 − η) v_i + η ∇f_i(x, ξ_i); u_i ← (1 − η) u_i + η v_i; c_i = C(u_i − g_i); g_i ← g_i + c_i; the estimate
    is g ← g + (1/M) Σ c_i (C6).

    η is `momentum`. The second momentum takes the term of order T^(−2/3) out of the rate of `ef21_sgdm`. v_i and u_i
    start as the first gradient and g_i at zero. The arguments are those of `ef21_sgdm`.

    References:
        Fatkhullin, Tyurin and Richtárik, "Momentum Provably Improves Error Feedback!", 2023,
            https://arxiv.org/abs/2305.15155
    """

    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        zero = torch.zeros(d, dtype=dtype)
        return {"known": zero, "average": zero, "second": zero, "steps": torch.zeros((), dtype=torch.int64)}

    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        # Counted here and not by step.index, since a first step may be skipped.
        eta = self.momentum if int(state["steps"]) else 1.0
        average = (1 - eta) * state["average"] + eta * gradient
        second = (1 - eta) * state["second"] + eta * average
        code, known = send_difference(self.compressor, second, state["known"], step.uplink(rank))
        return code, {"known": known, "average": average, "second": second, "steps": state["steps"] + 1}
