"""Compressed SGD: every worker sends its compressed gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.methods.base import EVERYONE, Round, State, Step, mean_of
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.participation import participating
from telegrad.spec import Amount, check_amount, implied, register
from telegrad.wire.code import Code

__all__ = ["SGD"]


@implied("method", "compressor")
@register(
    "sgd",
    example="sgd(mlmc(stopk(s=0.01)))",
    source="C1, C2; Robbins and Monro 1951; with mlmc(…) Algorithms 2 and 3 of Zukerman, Hamoud, Levy, ICML 2025",
)
@dataclass(frozen=True)
class SGD(GradientMethod):
    """Compressed SGD: the mean of the workers' compressed gradients.

    Worker i sends C_i(g_i); the estimate is (1/M) Σ C_i(g_i) (C2.1). No state.

    With an unbiased compressor this is SGD with (1 + ω/M) times the noise-free second moment (B7.4). A biased one is
    allowed, as the literature's baseline, and may get stuck away from the optimum (C2, test T2).

    Args:
        compressor: any; unbiased, unless you want the literature's baseline.
        participation: a count m or a fraction of the workers, drawn anew in every step; the estimate is then the mean
            over them, unbiased, with (E7)'s error: that of compression divided by m, and of their being a sample.

    References:
        Robbins and Monro, "A Stochastic Approximation Method", 1951, https://doi.org/10.1214/aoms/1177729586
    """

    compressor: Compressor
    participation: Amount | None = None

    remembers = False

    def __post_init__(self) -> None:
        check_amount(self, "participation", of="the workers")

    def plan(self, step: Step) -> Round:
        return EVERYONE if self.participation is None else participating(self.participation, step)

    def on_gpu(self, gradient: Tensor) -> bool:
        return not self.asks and self.compressor.on_gpu(gradient)

    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        return self.compressor.encode(gradient, step.uplink(rank)), state

    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        return mean_of(codes, workspace=step.workspace, device=step.device), state
