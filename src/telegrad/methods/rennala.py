"""Rennala SGD: the first gradients at the present point make a batch, however fast their workers are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.methods.asynchronous_method import ArrivalStep, AsynchronousMethod
from telegrad.methods.base import State
from telegrad.methods.oracle_method import Descent, Oracle, OracleStep, Upload
from telegrad.methods.unbiased import require_unbiased
from telegrad.spec import check_that, register

__all__ = ["Rennala"]


@register(
    "rennala", example="rennala(randk(k=0.1), batch=4)", source="Tyurin, Richtárik, NeurIPS 2023 (arXiv 2305.12387)"
)
@dataclass(frozen=True)
class Rennala(AsynchronousMethod):
    """Rennala SGD: a step for every batch of messages that were computed at the present point.

    g = (1/B) Σ C(∇f_i(x, ξ)) over the first B messages whose point is the present x; x ← x − γ g. Messages from a
    point before it are left out, and a worker goes on at the x that is present when its message has arrived.

    Fast workers fill the batch by several messages each, and none is waited for. Meant for data that are alike on all
    workers. Needs an unbiased compressor.

    Args:
        compressor: an unbiased one, such as mlmc(stopk(s=0.01)).
        batch: B.

    References:
        Tyurin and Richtárik, "Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a Fixed
            Computation Model", 2023, https://arxiv.org/abs/2305.12387
    """

    compressor: Compressor
    batch: int = 4

    def __post_init__(self) -> None:
        require_unbiased(self, self.compressor)
        check_that(self.batch >= 1, self, "batch", "a number of messages from 1 is allowed")

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload, State]:
        return step.upload(self.compressor, oracle.gradient(x)), state

    def server_init(self, x: Tensor) -> State:
        return {"sum": torch.zeros_like(x), "count": torch.zeros((), dtype=torch.int64)}

    def server_step(
        self, upload: Upload, x: Tensor, state: State, step: ArrivalStep, optimizer: Descent
    ) -> tuple[Tensor, State]:
        if step.delay:
            return x, state
        total, count = state["sum"].clone(), state["count"] + 1
        upload.messages[0].add_to(total)
        if int(count) < self.batch:
            return x, {"sum": total, "count": count}
        return optimizer(x, total / self.batch), self.server_init(x)
