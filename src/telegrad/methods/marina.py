"""MARINA: compressed differences of gradients along the way, and now and then a dense gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.methods.base import Round, State
from telegrad.methods.oracle_method import Broadcast, Oracle, OracleMethod, OracleStep, Upload, mean_vector
from telegrad.methods.unbiased import require_unbiased
from telegrad.spec import check_that, register

__all__ = ["MARINA"]


@register(
    "marina", example="marina(randk(k=0.1), probability=0.1)", source="C10; Gorbunov, Burlachenko, Li, Richtárik 2021"
)
@dataclass(frozen=True)
class MARINA(OracleMethod):
    """MARINA: compressed gradient differences, and dense gradients at random steps.

    g ← mean ∇f_i(x), sent dense, with probability p, by a coin that all share; else g ← g + mean Q_i(∇f_i(x) −
    ∇f_i(x')), x' the point before (C10.1). x ← x − γ g by the run's optimizer.

    The first round is dense. With batches (VR-MARINA, C10.4) a difference is between gradients on one batch, and a
    dense gradient is over all of a worker's examples, or on its batch where `refresh` is "batch". Good values of p are
    a message's share of the bits of a dense one: k for randk(k=…), 1/M for permk. Needs an unbiased compressor.

    Args:
        compressor: an unbiased one, such as mlmc(stopk(s=0.01)).
        probability: p, of a dense round.
        refresh: full or batch: what a dense gradient is over.

    References:
        Gorbunov et al., "MARINA: Faster Non-Convex Distributed Learning with Compression", 2021,
            https://arxiv.org/abs/2102.07845
    """

    compressor: Compressor
    probability: float
    refresh: str = "full"

    needs = "needs gradients at two points on one sample"

    def __post_init__(self) -> None:
        require_unbiased(self, self.compressor)
        check_that(0 < self.probability <= 1, self, "probability", "a number in (0, 1] is allowed")
        check_that(self.refresh in ("full", "batch"), self, "refresh", "full or batch is allowed")

    def plan(self, step: OracleStep) -> Round:
        return Round(dense=step.done == 0 or step.coin(self.probability))

    def worker_init(self, x: Tensor) -> State:
        return {"before": x}

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        if step.round.dense:
            gradient = oracle.full_gradient(x) if self.refresh == "full" else oracle.gradient(x)
            return step.upload(Identity(), gradient), {"before": x}
        difference = oracle.gradient(x) - oracle.gradient(state["before"])
        return step.upload(self.compressor, difference), {"before": x}

    def server_init(self, x: Tensor) -> State:
        return {"estimate": torch.zeros_like(x)}

    def server_step(self, uploads: Mapping[int, Upload], state: State, step: OracleStep) -> tuple[Broadcast, State]:
        mean = mean_vector(uploads.values())
        estimate = mean if step.round.dense else state["estimate"] + mean
        return step.broadcast(estimate), {"estimate": estimate}
