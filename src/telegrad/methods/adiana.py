"""ADIANA: DIANA with acceleration; the server has iterates of its own, and workers send two messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.errors import SpecError
from telegrad.methods.base import Contents, Round, State
from telegrad.methods.oracle_method import Broadcast, Descent, Oracle, OracleMethod, OracleStep, Upload, mean_vector
from telegrad.methods.unbiased import require_unbiased
from telegrad.spec import check_that, register

__all__ = ["ADIANA"]


@register("adiana", example="adiana(randk(k=0.1), mu=0.01)", source="C9; Li, Kovalev, Qian, Richtárik, ICML 2020")
@dataclass(frozen=True)
class ADIANA(OracleMethod):
    """ADIANA: accelerated gradient descent with compressed gradient differences.

    Workers send C(∇f_i(x) − h_i) and C'(∇f_i(w) − h_i), and learn h_i from the second. The server, with g = h + the
    mean of the first ones: y⁺ = x − η g, z⁺ = β z + (1−β) x + (γ/η)(y⁺ − x), w⁺ = y with probability p, else w; the
    next x is θ₁ z⁺ + θ₂ w⁺ + (1−θ₁−θ₂) y⁺ (C9.1). η is the learning rate; y is evaluated.

    With M workers and omega of the compressor, unless given: the rate of h is 1/(1 + omega), p = min(1, max(1,
    √(M/(32 omega)) − 1) / (2 (1 + omega))), θ₁ = min(1/4, √(η mu/p)), θ₂ = 1/2, γ = η / (2 (θ₁ + η mu)), β = 1 − γ mu,
    `mu` the strong convexity of f (C9.2); the theory's η is min(1/(2L), M / (64 omega (2 p (omega + 1) + 1)² L)), L
    the smoothness of every f_i. x comes down as it is, and w when it changes. Needs an unbiased compressor.

    Args:
        compressor: an unbiased one, such as mlmc(stopk(s=0.01)).
        mu: the strong convexity of f.
        probability: p, of moving w; none: theory's.
        theta: θ₁; none: theory's.
        gamma: γ; none: theory's.
        beta: β; none: theory's.

    References:
        Li et al., "Acceleration for Compressed Gradient Descent in Distributed and Federated Optimization", 2020,
            https://arxiv.org/abs/2002.11364
    """

    compressor: Compressor
    mu: float
    probability: float | None = None
    theta: float | None = None
    gamma: float | None = None
    beta: float | None = None

    takes_downlink = False
    moves_by_itself = True
    needs = "has accelerated iterates of its own on the server"

    def __post_init__(self) -> None:
        require_unbiased(self, self.compressor)
        allowed = "a number above 0 is allowed, or 0 with theta given"
        check_that(self.mu > 0 or (self.mu == 0 and self.theta is not None), self, "mu", allowed)
        for name in ("probability", "theta"):
            value = getattr(self, name)
            check_that(value is None or 0 < value <= 1, self, name, "a number in (0, 1] is allowed")
        check_that(self.gamma is None or self.gamma > 0, self, "gamma", "a number above 0 is allowed")
        check_that(self.beta is None or 0 <= self.beta <= 1, self, "beta", "a number in [0, 1] is allowed")

    def plan(self, step: OracleStep) -> Round:
        return Round(upload=Contents(messages=2), broadcast=Contents(messages=1 + self._moves_anchor(step)))

    def worker_init(self, x: Tensor) -> State:
        return {"shift": torch.zeros_like(x), "anchor": x, "at_anchor": torch.zeros(0, dtype=x.dtype)}

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        shift, at_anchor = state["shift"], state["at_anchor"]
        if not len(at_anchor):  # a new anchor: its gradient is kept until the next one
            at_anchor = oracle.full_gradient(state["anchor"])
        first = step.encode(self.compressor, oracle.gradient(x) - shift)
        second = step.encode(self.compressor, at_anchor - shift, "anchor")
        shift = shift + self._shift_rate(step) * second.vector
        return Upload((first, second)), {"shift": shift, "anchor": state["anchor"], "at_anchor": at_anchor}

    def server_init(self, x: Tensor) -> State:
        return {"x": x, "y": x, "z": x, "w": x, "shift": torch.zeros_like(x)}

    def server_step(self, uploads: Mapping[int, Upload], state: State, step: OracleStep) -> tuple[Broadcast, State]:
        x, y, z, eta = state["x"], state["y"], state["z"], step.lr
        _, theta, gamma, beta = self._constants(step)
        following = x - eta * (state["shift"] + mean_vector(uploads.values()))
        shift = state["shift"] + self._shift_rate(step) * mean_vector(uploads.values(), 1)
        z = beta * z + (1 - beta) * x + (gamma / eta) * (following - x)
        moves = self._moves_anchor(step)
        w = y if moves else state["w"]
        x = theta * z + 0.5 * w + (0.5 - theta) * following
        sent = (x, w) if moves else (x,)
        messages = tuple(step.encode(Identity(), vector, str(i)) for i, vector in enumerate(sent))
        return Broadcast(messages), {"x": x, "y": following, "z": z, "w": w, "shift": shift}

    def update(
        self, x: Tensor, broadcast: Broadcast | None, state: State, step: OracleStep, optimizer: Descent
    ) -> tuple[Tensor, State]:
        assert broadcast is not None  # every round sends
        if len(broadcast.messages) > 1:
            anchor = broadcast.messages[1].vector
            state = {"shift": state["shift"], "anchor": anchor, "at_anchor": anchor.new_zeros(0)}
        return broadcast.vector, state

    def point(self, x: Tensor, server: State) -> Tensor:
        return server["y"]

    def _moves_anchor(self, step: OracleStep) -> bool:
        return step.coin(self._constants(step)[0])

    def _omega(self, step: OracleStep) -> float:
        omega = step.omega(self.compressor)
        if not math.isfinite(omega):
            raise SpecError(
                f"{self}: its constants follow from omega, and none that is finite is known of the compressor"
            )
        return omega

    def _shift_rate(self, step: OracleStep) -> float:
        return 1 / (1 + self._omega(step))

    def _constants(self, step: OracleStep) -> tuple[float, float, float, float]:
        """p, θ₁, γ, β of (C9.2), where they are not given."""
        omega, eta = self._omega(step), step.positive_lr
        many = math.sqrt(step.workers / (32 * omega)) - 1 if omega > 0 else math.inf
        p = min(1.0, max(1.0, many) / (2 * (1 + omega))) if self.probability is None else self.probability
        theta = min(0.25, math.sqrt(eta * self.mu / p)) if self.theta is None else self.theta
        gamma = eta / (2 * (theta + eta * self.mu)) if self.gamma is None else self.gamma
        return p, theta, gamma, 1 - gamma * self.mu if self.beta is None else self.beta
