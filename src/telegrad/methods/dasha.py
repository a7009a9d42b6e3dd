"""DASHA: compressed differences of gradients and of what the server knows, never a dense round after the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.methods.base import Round, State, Step
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.shift import accumulate, empty_estimate
from telegrad.methods.unbiased import momentum_of, require_unbiased
from telegrad.spec import check_that, register
from telegrad.wire.code import Code

__all__ = ["DASHA"]


@register("dasha", example="dasha(randk(k=0.01))", source="C12; Tyurin, Richtárik, ICLR 2023 (arXiv 2202.01268)")
@dataclass(frozen=True)
class DASHA(GradientMethod):
    """DASHA: compressed gradient differences with momentum, without synchronising the workers.

    m_i = C_i(h_i⁺ − h_i − a (g_i − h_i)), g_i ← g_i + m_i, where h_i⁺ is the new gradient and h_i the last one; the
    estimate is g ← g + mean m_i = mean g_i (C12.1).

    `rate` is a, by default 1/(2 omega(d) + 1). Needs an unbiased compressor. `dasha_page` and `dasha_mvr` are its forms
    for batches.

    Args:
        compressor: an unbiased one, such as mlmc(stopk(s=0.01)).
        rate: a; none: 1/(2 omega + 1).
        start: dense, the first gradients are sent uncompressed and g_i = h_i, which the bound needs; or zero, g_i = h_i
            = 0, and nothing dense is ever sent.

    References:
        Tyurin and Richtárik, "DASHA: Distributed Nonconvex Optimization with Communication Compression and Optimal
            Oracle Complexity", 2023, https://arxiv.org/abs/2202.01268
    """

    compressor: Compressor
    rate: float | None = None
    start: Literal["dense", "zero"] = "dense"

    def __post_init__(self) -> None:
        require_unbiased(self, self.compressor)
        check_that(self.rate is None or 0 < self.rate <= 1, self, "rate", "a number in (0, 1] is allowed")

    def plan(self, step: Step) -> Round:
        return Round(dense=self.start == "dense" and step.index == 0)

    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        zero = torch.zeros(d, dtype=dtype)
        return {"tracked": zero, "known": zero}

    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        if step.round.dense:
            return Identity().encode(gradient), {"tracked": gradient.clone(), "known": gradient.clone()}
        rate = momentum_of(self, self.compressor, len(gradient), self.rate)
        change = gradient - state["tracked"] - rate * (state["known"] - state["tracked"])
        code = self.compressor.encode(change, step.uplink(rank))
        known = state["known"].clone()
        code.add_to(known)
        return code, {"tracked": gradient.clone(), "known": known}

    def server_init(self, d: int, dtype: torch.dtype) -> State:
        return empty_estimate(d, dtype)

    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        return accumulate(codes, state)
