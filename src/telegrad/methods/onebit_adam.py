"""1-bit Adam: Adam's variance from a dense warm-up, then momenta sent as signs with error feedback, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.compressors.sign import Sign
from telegrad.methods.base import Round, State
from telegrad.methods.contractive import require_contractive
from telegrad.methods.oracle_method import Broadcast, Descent, Oracle, OracleMethod, OracleStep, Upload, mean_vector
from telegrad.spec import check_that, register

__all__ = ["OneBitAdam"]

_SIGNS = Sign()


@register("onebit_adam", example="onebit_adam(warmup=100)", source="Tang et al., ICML 2021")
@dataclass(frozen=True)
class OneBitAdam(OracleMethod):
    """1-bit Adam: Adam whose second moment is frozen after a warm-up, then momentum sent with error feedback.

    For `warmup` steps m ← β₁ m + (1 − β₁) g and v ← β₂ v + (1 − β₂) g², g the dense mean gradient. Then v stays, and
    worker i sends C(m_i + e_i) of m_i = β₁ m + (1 − β₁) g_i, e_i what was left out; the server sends C of their mean
    plus its own e, and all take that for m. Always x ← x − γ m / (√v + ε), γ the learning rate.

    C is scaled sign by default: one bit an entry, up and down. A message covers the whole model, a bucket or a tensor
    (`granularity`), with one scale each. No bias correction, as in the paper.

    Args:
        compressor: of the momentum, after the warm-up.
        warmup: dense steps.
        beta1: β₁, of the momentum.
        beta2: β₂, of the second moment.
        eps: ε.

    References:
        Tang et al., "1-bit Adam: Communication Efficient Large-Scale Training with Adam's Convergence Speed", 2021,
            https://arxiv.org/abs/2102.02888
    """

    compressor: Compressor = _SIGNS
    warmup: int = 100
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    takes_downlink = False
    moves_by_itself = True
    needs = "keeps Adam's moments on workers and compresses what comes down with a memory"
    instead = "ef14(sign)"

    def __post_init__(self) -> None:
        require_contractive(self, self.compressor)
        check_that(self.warmup >= 1, self, "warmup", "a number of steps from 1 is allowed")
        for name in ("beta1", "beta2"):
            check_that(0 <= getattr(self, name) < 1, self, name, "a number in [0, 1) is allowed")
        check_that(self.eps > 0, self, "eps", "a number above 0 is allowed")

    def plan(self, step: OracleStep) -> Round:
        return Round(dense=step.done < self.warmup)

    def worker_init(self, x: Tensor) -> State:
        zero = torch.zeros_like(x)
        return {"momentum": zero, "variance": zero, "error": zero}

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        gradient = oracle.gradient(x)
        if step.round.dense:
            return step.upload(Identity(), gradient), state
        owed = self.beta1 * state["momentum"] + (1 - self.beta1) * gradient + state["error"]
        upload = step.upload(self.compressor, owed)
        return upload, {**state, "error": owed - upload.vector}

    def server_init(self, x: Tensor) -> State:
        return {"error": torch.zeros_like(x)}

    def server_step(self, uploads: Mapping[int, Upload], state: State, step: OracleStep) -> tuple[Broadcast, State]:
        mean = mean_vector(uploads.values())
        if step.round.dense:
            return Broadcast((step.encode(Identity(), mean),)), state
        owed = mean + state["error"]
        broadcast = Broadcast((step.encode(self.compressor, owed),))
        return broadcast, {"error": owed - broadcast.vector}

    def update(
        self, x: Tensor, broadcast: Broadcast | None, state: State, step: OracleStep, optimizer: Descent
    ) -> tuple[Tensor, State]:
        assert broadcast is not None
        came = broadcast.vector
        momentum, variance = came, state["variance"]
        if step.round.dense:
            momentum = self.beta1 * state["momentum"] + (1 - self.beta1) * came
            variance = self.beta2 * variance + (1 - self.beta2) * came.square()
        moved = x - step.lr * momentum / (variance.sqrt() + self.eps)
        return moved, {**state, "momentum": momentum, "variance": variance}
