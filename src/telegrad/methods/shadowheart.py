"""Shadowheart SGD: every worker does as much as fits into a common time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import SpecError
from telegrad.methods.base import Contents, Round, State
from telegrad.methods.clock import Clock
from telegrad.methods.oracle_method import Broadcast, Oracle, OracleMethod, OracleStep, Upload
from telegrad.methods.unbiased import require_unbiased
from telegrad.spec import check_that, register

__all__ = ["Budget", "Shadowheart", "budgets", "equilibrium_seconds"]

_MOST = 1000  # gradients or messages, where one takes next to no time


@dataclass(frozen=True)
class Budget:
    """What a worker does in a round: so many gradients, so many messages of their sum, of this weight to the server."""

    gradients: int
    messages: int
    weight: float


@register(
    "shadowheart", example="shadowheart(randk(k=0.1), noise=1.0)", source="C17; Tyurin, Pozzi, Ilin, Richtárik 2024"
)
@dataclass(frozen=True)
class Shadowheart(OracleMethod):
    """Shadowheart SGD: each worker adds gradients and sends messages as many as its speed allows.

    Worker i adds b_i gradients at x up to G_i and sends m_i independent messages C_ij(G_i); the estimate is
    Σ_i w_i Σ_j C_ij(G_i) / Σ_i w_i m_i b_i (C17.2), the gradient of the run's optimizer.

    b_i = ⌊t*/h_i⌋ and m_i = ⌊t*/τ_i⌋, where h_i and τ_i are worker i's seconds for a gradient and a message on the
    run's `clock`, simulated or measured of processes, and t* is the equilibrium time (C17.1); a worker for which either
    is 0 sits out, and none does more than 1000 of either. `noise` is σ²/ε: the variance of a gradient over the wanted
    ‖∇f‖². w_i = 1 / (b_i omega + omega noise + m_i noise). Meant for data that are alike on all workers. Needs an
    unbiased compressor.

    Args:
        compressor: an unbiased one, such as mlmc(stopk(s=0.01)).
        noise: σ²/ε.

    References:
        Tyurin et al., "Shadowheart SGD: Distributed Asynchronous SGD with Optimal Time Complexity Under Arbitrary
            Computation and Communication Heterogeneity", 2024, https://arxiv.org/abs/2402.04785
    """

    compressor: Compressor
    noise: float = 1.0

    needs_clock = True
    needs = "plans by a clock, with several gradients and messages a round"
    instead = "sgd(randk(k=0.1))"

    def __post_init__(self) -> None:
        require_unbiased(self, self.compressor)
        check_that(self.noise >= 0, self, "noise", "a number from 0 is allowed")

    def plan(self, step: OracleStep) -> Round:
        each = self._budgets(step)
        cohort = tuple(rank for rank, own in enumerate(each) if own.weight > 0)
        return Round(cohort=cohort, upload=tuple(Contents(own.messages) for own in each))

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        assert step.rank is not None
        own = self._budgets(step)[step.rank]
        total = torch.zeros_like(x)
        for number in range(own.gradients):
            if number:
                oracle.next_sample()
            total += oracle.gradient(x)
        return Upload(tuple(step.encode(self.compressor, total, str(j)) for j in range(own.messages))), state

    def server_step(self, uploads: Mapping[int, Upload], state: State, step: OracleStep) -> tuple[Broadcast, State]:
        each = self._budgets(step)
        whole = sum(each[rank].weight * each[rank].messages * each[rank].gradients for rank in uploads)
        out = step.zeros()
        for rank, upload in uploads.items():
            for message in upload.messages:
                message.add_to(out, each[rank].weight / whole)
        return step.broadcast(out), state

    def _budgets(self, step: OracleStep) -> tuple[Budget, ...]:
        omega = step.omega(self.compressor)
        if step.clock is None or not math.isfinite(omega):
            raise SpecError(f"{self} needs a clock and a compressor with a finite omega")
        return budgets(step.clock, step.workers, omega, self.noise)


def equilibrium_seconds(gradient: list[float], message: list[float], omega: float, noise: float) -> float:
    """t* of (C17.1), from every worker's seconds for a gradient and for a message."""
    pairs = sorted(zip(gradient, message, strict=True), key=max)
    return min(max(max(pairs[j]), _shortest(pairs[: j + 1], omega, noise)) for j in range(len(pairs)))


def _shortest(pairs: list[tuple[float, float]], omega: float, noise: float) -> float:
    """The s with s · Σ 1/(2τω + 4τhω·noise/s + 2h·noise) = 1; 0 where a worker costs nothing."""

    def costs(s: float) -> list[float]:
        return [2 * tau * omega + 4 * tau * h * omega * noise / s + 2 * h * noise for h, tau in pairs]

    if min(costs(1.0)) == 0:
        return 0.0
    low, high = 0.0, 1.0
    while high * sum(1 / cost for cost in costs(high)) < 1:
        high *= 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if middle * sum(1 / cost for cost in costs(middle)) >= 1 else (middle, high)
    return high


def budgets(clock: Clock, workers: int, omega: float, noise: float) -> tuple[Budget, ...]:
    """What each worker does in a round of (C17.2)."""
    gradient = [clock.gradient_seconds(rank) for rank in range(workers)]
    message = [clock.up_seconds(rank, 1) for rank in range(workers)]
    if omega == 0 and noise == 0:  # one worker's gradient is exact, and arrives exact
        first = min(range(workers), key=lambda rank: max(gradient[rank], message[rank]))
        return tuple(Budget(1, 1, 1.0) if rank == first else Budget(0, 0, 0.0) for rank in range(workers))
    seconds = equilibrium_seconds(gradient, message, omega, noise)

    def own(h: float, tau: float) -> Budget:
        b, m = (_MOST if seconds >= _MOST * cost else math.floor(seconds / cost) for cost in (h, tau))
        return Budget(b, m, 1 / (b * omega + omega * noise + m * noise)) if b and m else Budget(0, 0, 0.0)

    return tuple(own(h, tau) for h, tau in zip(gradient, message, strict=True))
