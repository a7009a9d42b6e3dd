"""EF21-PAGE: EF21 over gradients of batches, with a full gradient now and then."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from telegrad.methods.base import State
from telegrad.methods.contractive import require_contractive
from telegrad.methods.oracle_method import Oracle, OracleStep
from telegrad.methods.tracked_method import TrackedMethod, page_estimate
from telegrad.spec import check_that, register

__all__ = ["EF21Page"]


@register(
    "ef21_page",
    example="ef21_page(topk(k=0.01), probability=0.1)",
    source="C5; Fatkhullin, Sokolov, Gorbunov, Li, Richtárik 2021",
)
@dataclass(frozen=True)
class EF21Page(TrackedMethod):
    """EF21-PAGE: EF21 with full gradients at random steps and differences on one batch otherwise.

    As `ef21`, with v_i = ∇f_i(x⁺) in full with probability p, by a coin that all share, else v_i + ∇f_i(x⁺, ξ) −
    ∇f_i(x, ξ) on one batch, in place of the gradient (C5).

    The first v_i is in full and g_i starts at zero: nothing dense is sent. Needs a contractive compressor.

    Args:
        compressor: a contractive one, such as topk(k=0.01).
        probability: p, of a full gradient.

    References:
        Fatkhullin et al., "EF21 with Bells & Whistles: Practical Algorithmic Extensions of Modern Error Feedback",
            2021, https://arxiv.org/abs/2110.03294
    """

    probability: float

    instead = "ef21_sgdm(topk(k=0.01))"

    def __post_init__(self) -> None:
        require_contractive(self, self.compressor)
        check_that(0 < self.probability <= 1, self, "probability", "a number in (0, 1] is allowed")

    def track(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> Tensor:
        return page_estimate(oracle, x, state, step, self.probability)

    def difference(self, tracked: Tensor, state: State, step: OracleStep) -> Tensor:
        return tracked - state["known"]
