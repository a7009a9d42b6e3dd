"""DASHA-PAGE: DASHA over gradients of batches, with a full gradient now and then."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from telegrad.methods.base import State
from telegrad.methods.oracle_method import Oracle, OracleStep
from telegrad.methods.tracked_method import DASHAForm, page_estimate
from telegrad.spec import check_that, register

__all__ = ["DASHAPage"]


@register(
    "dasha_page",
    example="dasha_page(randk(k=0.01), probability=0.1)",
    source="C12; Tyurin, Richtárik, ICLR 2023 (arXiv 2202.01268)",
)
@dataclass(frozen=True)
class DASHAPage(DASHAForm):
    """DASHA-PAGE: DASHA with full gradients at random steps and differences on one batch otherwise.

    As `dasha`, with h_i⁺ = ∇f_i(x⁺) in full with probability p, by a coin that all share, else h_i + ∇f_i(x⁺, ξ) −
    ∇f_i(x, ξ) on one batch (C12.2).

    A good p is B/(m + B) for batches of B among m examples. After the first round, which is dense, only compressed
    vectors are sent. `rate` is a, by default 1/(2 omega + 1). Needs an unbiased compressor.

    Args:
        compressor: an unbiased one, such as mlmc(stopk(s=0.01)).
        probability: p, of a full gradient.
        rate: a; none: 1/(2 omega + 1).

    References:
        Tyurin and Richtárik, "DASHA: Distributed Nonconvex Optimization with Communication Compression and Optimal
            Oracle Complexity", 2023, https://arxiv.org/abs/2202.01268
    """

    probability: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_that(0 < self.probability <= 1, self, "probability", "a number in (0, 1] is allowed")

    def track(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> Tensor:
        return page_estimate(oracle, x, state, step, self.probability)
