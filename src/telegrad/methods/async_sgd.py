"""Asynchronous SGD: every compressed gradient is applied as it arrives, however old its point is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.methods.asynchronous_method import ArrivalStep, AsynchronousMethod
from telegrad.methods.base import State
from telegrad.methods.oracle_method import Descent, Oracle, OracleStep, Upload
from telegrad.methods.unbiased import require_unbiased
from telegrad.spec import check_that, register

__all__ = ["AsyncSGD"]


@register(
    "async_sgd",
    example="async_sgd(randk(k=0.1))",
    source="Recht, Ré, Wright, Niu, NeurIPS 2011; delays left out: Maranjyan, Tyurin, Richtárik 2025 (Ringmaster)",
)
@dataclass(frozen=True)
class AsyncSGD(AsynchronousMethod):
    """Asynchronous SGD: every message moves the model when it arrives, too old ones are left out.

    x ← x − γ C(∇f_i(x', ξ)) for every message that arrives, x' the point that its worker got last.

    A message whose point is more than `longest_delay` changes of x old is left out (none is, by default), and its
    worker starts anew from the present x. Meant for data that are alike on all workers. Needs an unbiased compressor.

    Args:
        compressor: an unbiased one, such as mlmc(stopk(s=0.01)).
        longest_delay: changes of x that a message's point may be old; none: any.

    References:
        Maranjyan, Tyurin and Richtárik, "Ringmaster ASGD: The First Asynchronous SGD with Optimal Time Complexity",
            2025, https://arxiv.org/abs/2501.16168
        Recht et al., "Hogwild!: A Lock-Free Approach to Parallelizing Stochastic Gradient Descent", 2011,
            https://arxiv.org/abs/1106.5730
    """

    compressor: Compressor
    longest_delay: int | None = None

    def __post_init__(self) -> None:
        require_unbiased(self, self.compressor)
        fits = self.longest_delay is None or self.longest_delay >= 0
        check_that(fits, self, "longest_delay", "a number of changes from 0 is allowed")

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload, State]:
        return step.upload(self.compressor, oracle.gradient(x)), state

    def server_step(
        self, upload: Upload, x: Tensor, state: State, step: ArrivalStep, optimizer: Descent
    ) -> tuple[Tensor, State]:
        if self.longest_delay is not None and step.delay > self.longest_delay:
            return x, state
        return optimizer(x, upload.vector), state
