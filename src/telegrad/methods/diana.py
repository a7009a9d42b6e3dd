"""DIANA: workers send compressed differences to a shift that both ends learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.methods.base import State, Step, mean_of, require_finite
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.unbiased import require_unbiased, shift_rate_of
from telegrad.spec import check_that, register
from telegrad.wire.code import Code

__all__ = ["DIANA"]


@register("diana", example="diana(randk(k=0.01))", source="C8; Mishchenko, Gorbunov, Takáč, Richtárik 2019")
@dataclass(frozen=True)
class DIANA(GradientMethod):
    """DIANA: compressed differences between gradients and shifts that learn them.

    Δ_i = C_i(g_i − h_i), h_i ← h_i + a Δ_i; the estimate is h + mean Δ_i, then h ← h + a mean Δ_i (C8.1).

    All h_i and h = mean h_i start at zero. As the h_i learn the gradients at the optimum, what is compressed vanishes
    there, so that heterogeneous data leave no error. `shift_rate` is a; by default 1/(1 + omega(d)). The momentum form
    is the optimizer's own momentum. Needs an unbiased compressor.

    Args:
        compressor: an unbiased one, such as mlmc(stopk(s=0.01)).
        shift_rate: a; none: 1/(1 + omega).

    References:
        Mishchenko et al., "Distributed Learning with Compressed Gradient Differences", 2019,
            https://arxiv.org/abs/1901.09269
    """

    compressor: Compressor
    shift_rate: float | None = None

    def __post_init__(self) -> None:
        require_unbiased(self, self.compressor)
        check_that(
            self.shift_rate is None or 0 < self.shift_rate <= 1, self, "shift_rate", "a number in (0, 1] is allowed"
        )

    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        return {"shift": torch.zeros(d, dtype=dtype)}

    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        code = self.compressor.encode(gradient - state["shift"], step.uplink(rank))
        shift = state["shift"].clone()
        code.add_to(shift, self._rate(len(shift)))
        return code, {"shift": shift}

    def server_init(self, d: int, dtype: torch.dtype) -> State:
        return {"shift": torch.zeros(d, dtype=dtype)}

    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        mean = mean_of(codes)
        estimate = state["shift"] + mean
        require_finite(estimate.to(codes[0].dtype))
        return estimate, {"shift": state["shift"] + self._rate(len(mean)) * mean}

    def _rate(self, d: int) -> float:
        return shift_rate_of(self, self.compressor, d) if self.shift_rate is None else self.shift_rate
