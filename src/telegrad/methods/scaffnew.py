"""Scaffnew: local steps with control vectors, and a mean of the models now and then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.identity import Identity
from telegrad.methods.base import Round, State
from telegrad.methods.oracle_method import Broadcast, Descent, Oracle, OracleMethod, OracleStep, Upload, mean_vector
from telegrad.spec import check_that, register

__all__ = ["Scaffnew"]


@register(
    "scaffnew", example="scaffnew(probability=0.1)", source="C14; Mishchenko, Malinovsky, Stich, Richtárik, ICML 2022"
)
@dataclass(frozen=True)
class Scaffnew(OracleMethod):
    """Scaffnew (ProxSkip): local steps with control variates, and communication at random steps.

    x̂_i = x_i − γ (∇f_i(x_i) − h_i); with probability p, by a coin that all share, the x̂_i are sent, and x_i ← x̄ =
    mean x̂_i, h_i ← h_i + (p/γ)(x̄ − x̂_i); else x_i ← x̂_i and nothing is sent (C14.2). γ is the learning rate.

    Every worker has an x_i of its own; Σ h_i = 0. The best p is 1/√κ, κ the condition number of the f_i.

    Args:
        probability: p, of a round with communication.

    References:
        Mishchenko et al., "ProxSkip: Yes! Local Gradient Steps Provably Lead to Communication Acceleration! Finally!",
            2022, https://arxiv.org/abs/2202.09357
    """

    probability: float

    iterates = "own"
    takes_downlink = False
    moves_by_itself = True
    needs = "moves a model of its own on each worker"

    def __post_init__(self) -> None:
        check_that(0 < self.probability <= 1, self, "probability", "a number in (0, 1] is allowed")

    def plan(self, step: OracleStep) -> Round:
        sends = step.coin(self.probability)
        return Round(sends=sends, dense=sends)

    def worker_init(self, x: Tensor) -> State:
        return {"control": torch.zeros_like(x), "moved": x}

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        moved = x - step.lr * (oracle.gradient(x) - state["control"])
        upload = step.upload(Identity(), moved) if step.round.sends else None
        return upload, {"control": state["control"], "moved": moved}

    def server_step(self, uploads: Mapping[int, Upload], state: State, step: OracleStep) -> tuple[Broadcast, State]:
        return Broadcast((step.encode(Identity(), mean_vector(uploads.values())),)), state

    def update(
        self, x: Tensor, broadcast: Broadcast | None, state: State, step: OracleStep, optimizer: Descent
    ) -> tuple[Tensor, State]:
        moved = state["moved"]
        if broadcast is None:
            return moved, state
        mean = broadcast.vector
        control = state["control"] + (self.probability / step.positive_lr) * (mean - moved)
        return mean, {"control": control, "moved": moved}
