"""What DASHA's and EF21's forms for batches share: each worker tracks its gradient, and sends what the server lacks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.methods.base import Round, State
from telegrad.methods.oracle_method import Broadcast, Oracle, OracleMethod, OracleStep, Upload, mean_vector
from telegrad.methods.unbiased import momentum_of, require_unbiased
from telegrad.spec import check_that

__all__ = ["DASHAForm", "TrackedMethod", "page_estimate"]


@dataclass(frozen=True)
class TrackedMethod(OracleMethod):
    """Worker i keeps h_i, an estimate of its gradient ("tracked"), and g_i, what the server knows of it ("known"). It
    sends C_i of their difference, g_i ← g_i + C_i(…); the estimate is g ← g + mean C_i(…) = mean g_i. In dense rounds
    h_i is sent as it is, and both are set to it.
    """

    compressor: Compressor

    needs = "needs gradients at two points on one sample"

    @abstractmethod
    def track(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> Tensor:
        """The next h_i, at x; `state` holds the last one and the point before, under "before"."""

    @abstractmethod
    def difference(self, tracked: Tensor, state: State, step: OracleStep) -> Tensor:
        """What is compressed, for the next h_i."""

    def worker_init(self, x: Tensor) -> State:
        return {"before": x, "tracked": torch.zeros_like(x), "known": torch.zeros_like(x)}

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        tracked = self.track(oracle, x, state, step)
        if step.round.dense:
            return step.upload(Identity(), tracked), {"before": x, "tracked": tracked, "known": tracked}
        upload = step.upload(self.compressor, self.difference(tracked, state, step))
        known = state["known"].clone()
        upload.messages[0].add_to(known)
        return upload, {"before": x, "tracked": tracked, "known": known}

    def server_init(self, x: Tensor) -> State:
        return {"estimate": torch.zeros_like(x)}

    def server_step(self, uploads: Mapping[int, Upload], state: State, step: OracleStep) -> tuple[Broadcast, State]:
        estimate = state["estimate"] + mean_vector(uploads.values())
        return step.broadcast(estimate), {"estimate": estimate}


@dataclass(frozen=True)
class DASHAForm(TrackedMethod):
    """DASHA over any h_i: C_i(h_i⁺ − h_i − a (g_i − h_i)) is sent, after a dense first round (C12.1)."""

    rate: float | None = field(default=None, kw_only=True)

    instead = "dasha(randk(k=0.01))"

    def __post_init__(self) -> None:
        require_unbiased(self, self.compressor)
        check_that(self.rate is None or 0 < self.rate <= 1, self, "rate", "a number in (0, 1] is allowed")

    def plan(self, step: OracleStep) -> Round:
        return Round(dense=step.done == 0)

    def difference(self, tracked: Tensor, state: State, step: OracleStep) -> Tensor:
        rate = momentum_of(self, self.compressor, len(tracked), self.rate, step.omega(self.compressor))
        return tracked - state["tracked"] - rate * (state["known"] - state["tracked"])


def page_estimate(oracle: Oracle, x: Tensor, state: State, step: OracleStep, probability: float) -> Tensor:
    """PAGE's h_i⁺: ∇f_i(x) in full at first and with this probability, by a coin that all share; else h_i + ∇f_i(x, ξ)
    − ∇f_i(x', ξ) on one batch, x' the point before.
    """
    if step.done == 0 or step.coin(probability):
        return oracle.full_gradient(x)
    return state["tracked"] + oracle.gradient(x) - oracle.gradient(state["before"])
