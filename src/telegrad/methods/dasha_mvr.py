"""DASHA-MVR: DASHA over gradients of batches, with momentum that reduces their variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.methods.base import Round, State
from telegrad.methods.dasha_page import tracked_upload
from telegrad.methods.oracle_method import Broadcast, Oracle, OracleMethod, OracleStep, Upload, mean_vector
from telegrad.methods.unbiased import require_unbiased
from telegrad.spec import check_that, register

__all__ = ["DASHAMVR"]


@register("dasha_mvr", example="dasha_mvr(randk(k=0.01), momentum=0.1)", source="C12; Tyurin, Richtárik, ICLR 2023")
@dataclass(frozen=True)
class DASHAMVR(OracleMethod):
    """DASHA-MVR: DASHA with momentum variance reduction for stochastic gradients.

    As `dasha`, with h_i⁺ = ∇f_i(x⁺, ξ) + (1 − b)(h_i − ∇f_i(x, ξ)), both gradients on one batch (C12.2).

    `momentum` is b: 1 takes the batch's gradient as it is, smaller values remember more. Needs an unbiased compressor.

    Args:
        compressor: an unbiased one, such as mlmc(stopk(s=0.01)).
        momentum: b in (0, 1].
        first_batches: over so many batches h_i is averaged at the start, in a dense round; after it only compressed
            vectors are sent. `rate` is a, by default 1/(2 omega + 1).
        rate: a; none: 1/(2 omega + 1).

    References:
        Tyurin and Richtárik, "DASHA: Distributed Nonconvex Optimization with Communication Compression and Optimal
            Oracle Complexity", 2023, https://arxiv.org/abs/2202.01268
    """

    compressor: Compressor
    momentum: float = 0.1
    first_batches: int = 1
    rate: float | None = None

    needs = "needs gradients at two points on one sample"
    instead = "dasha(randk(k=0.01))"

    def __post_init__(self) -> None:
        require_unbiased(self, self.compressor)
        check_that(0 < self.momentum <= 1, self, "momentum", "a number in (0, 1] is allowed")
        check_that(self.first_batches >= 1, self, "first_batches", "a number of batches from 1 is allowed")
        check_that(self.rate is None or 0 < self.rate <= 1, self, "rate", "a number in (0, 1] is allowed")

    def plan(self, step: OracleStep) -> Round:
        return Round(dense=step.done == 0)

    def worker_init(self, x: Tensor) -> State:
        return {"before": x, "tracked": torch.zeros_like(x), "known": torch.zeros_like(x)}

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        if step.round.dense:
            first = oracle.gradient(x)
            for _ in range(1, self.first_batches):
                oracle.next_sample()
                first = first + oracle.gradient(x)
            first = first / self.first_batches
            return step.upload(Identity(), first), {"before": x, "tracked": first, "known": first}
        kept = (1 - self.momentum) * (state["tracked"] - oracle.gradient(state["before"]))
        return tracked_upload(self, x, oracle.gradient(x) + kept, state, step)

    def server_init(self, x: Tensor) -> State:
        return {"estimate": torch.zeros_like(x)}

    def server_step(self, uploads: Mapping[int, Upload], state: State, step: OracleStep) -> tuple[Broadcast, State]:
        estimate = state["estimate"] + mean_vector(uploads.values())
        return step.broadcast(estimate), {"estimate": estimate}
