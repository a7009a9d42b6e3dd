"""DASHA-MVR: DASHA over gradients of batches, with momentum that reduces their variance."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from telegrad.methods.base import State
from telegrad.methods.oracle_method import Oracle, OracleStep
from telegrad.methods.tracked_method import DASHAForm
from telegrad.spec import check_that, register

__all__ = ["DASHAMVR"]


@register(
    "dasha_mvr",
    example="dasha_mvr(randk(k=0.01), momentum=0.1)",
    source="C12; Tyurin, Richtárik, ICLR 2023 (arXiv 2202.01268)",
)
@dataclass(frozen=True)
class DASHAMVR(DASHAForm):
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

    momentum: float = 0.1
    first_batches: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_that(0 < self.momentum <= 1, self, "momentum", "a number in (0, 1] is allowed")
        check_that(self.first_batches >= 1, self, "first_batches", "a number of batches from 1 is allowed")

    def track(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> Tensor:
        if step.round.dense:
            first = oracle.gradient(x)
            for _ in range(1, self.first_batches):
                oracle.next_sample()
                first = first + oracle.gradient(x)
            return first / self.first_batches
        kept = (1 - self.momentum) * (state["tracked"] - oracle.gradient(state["before"]))
        return oracle.gradient(x) + kept
