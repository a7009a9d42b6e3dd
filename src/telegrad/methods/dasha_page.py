"""DASHA-PAGE: DASHA over gradients of batches, with a full gradient now and then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.methods.base import Round, State
from telegrad.methods.oracle_method import Broadcast, Oracle, OracleMethod, OracleStep, Upload, mean_vector
from telegrad.methods.unbiased import momentum_of, require_unbiased
from telegrad.spec import check_that, register

__all__ = ["DASHAPage"]


@register(
    "dasha_page", example="dasha_page(randk(k=0.01), probability=0.1)", source="C12; Tyurin, Richtárik, ICLR 2023"
)
@dataclass(frozen=True)
class DASHAPage(OracleMethod):
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

    compressor: Compressor
    probability: float
    rate: float | None = None

    needs = "needs gradients at two points on one sample"
    instead = "dasha(randk(k=0.01))"

    def __post_init__(self) -> None:
        require_unbiased(self, self.compressor)
        check_that(0 < self.probability <= 1, self, "probability", "a number in (0, 1] is allowed")
        check_that(self.rate is None or 0 < self.rate <= 1, self, "rate", "a number in (0, 1] is allowed")

    def plan(self, step: OracleStep) -> Round:
        return Round(dense=step.done == 0)

    def worker_init(self, x: Tensor) -> State:
        return {"before": x, "tracked": torch.zeros_like(x), "known": torch.zeros_like(x)}

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        if step.round.dense:
            first = oracle.full_gradient(x)
            return step.upload(Identity(), first), {"before": x, "tracked": first, "known": first}
        if step.coin(self.probability):
            tracked = oracle.full_gradient(x)
        else:
            tracked = state["tracked"] + oracle.gradient(x) - oracle.gradient(state["before"])
        return tracked_upload(self, x, tracked, state, step)

    def server_init(self, x: Tensor) -> State:
        return {"estimate": torch.zeros_like(x)}

    def server_step(self, uploads: Mapping[int, Upload], state: State, step: OracleStep) -> tuple[Broadcast, State]:
        estimate = state["estimate"] + mean_vector(uploads.values())
        return step.broadcast(estimate), {"estimate": estimate}


def tracked_upload(
    method: OracleMethod, x: Tensor, tracked: Tensor, state: State, step: OracleStep
) -> tuple[Upload, State]:
    """What a worker of DASHA sends for the new estimate `tracked` of its gradient (C12.1), and its next state."""
    compressor: Compressor = method.compressor  # type: ignore[attr-defined]
    rate = momentum_of(method, compressor, len(x), method.rate, step.omega(compressor))  # type: ignore[attr-defined]
    upload = step.upload(compressor, tracked - state["tracked"] - rate * (state["known"] - state["tracked"]))
    known = state["known"].clone()
    upload.messages[0].add_to(known)
    return upload, {"before": x, "tracked": tracked, "known": known}
