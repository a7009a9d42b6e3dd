"""EF21-PAGE: EF21 over gradients of batches, with a full gradient now and then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.methods.base import State
from telegrad.methods.contractive import require_contractive
from telegrad.methods.oracle_method import Broadcast, Oracle, OracleMethod, OracleStep, Upload, mean_vector
from telegrad.spec import check_that, register

__all__ = ["EF21Page"]


@register(
    "ef21_page",
    example="ef21_page(topk(k=0.01), probability=0.1)",
    source="C5; Fatkhullin, Sokolov, Gorbunov, Li, Richtárik 2021",
)
@dataclass(frozen=True)
class EF21Page(OracleMethod):
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

    compressor: Compressor
    probability: float

    needs = "needs gradients at two points on one sample"
    instead = "ef21_sgdm(topk(k=0.01))"

    def __post_init__(self) -> None:
        require_contractive(self, self.compressor)
        check_that(0 < self.probability <= 1, self, "probability", "a number in (0, 1] is allowed")

    def worker_init(self, x: Tensor) -> State:
        return {"before": x, "tracked": torch.zeros_like(x), "known": torch.zeros_like(x)}

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        if step.done == 0 or step.coin(self.probability):
            tracked = oracle.full_gradient(x)
        else:
            tracked = state["tracked"] + oracle.gradient(x) - oracle.gradient(state["before"])
        upload = step.upload(self.compressor, tracked - state["known"])
        known = state["known"].clone()
        upload.messages[0].add_to(known)
        return upload, {"before": x, "tracked": tracked, "known": known}

    def server_init(self, x: Tensor) -> State:
        return {"estimate": torch.zeros_like(x)}

    def server_step(self, uploads: Mapping[int, Upload], state: State, step: OracleStep) -> tuple[Broadcast, State]:
        estimate = state["estimate"] + mean_vector(uploads.values())
        return step.broadcast(estimate), {"estimate": estimate}
