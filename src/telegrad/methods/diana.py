"""DIANA: workers send compressed differences to a shift that both ends learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.methods.base import State, Step, mean_of, require_finite
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.shift import number_beside, with_number
from telegrad.methods.unbiased import require_unbiased, shift_rate_of
from telegrad.spec import check_that, register
from telegrad.wire.code import Code
from telegrad.wire.values.base import round_scalar

__all__ = ["DIANA"]


@register("diana", example="diana(randk(k=0.01))", source="C8; Mishchenko, Gorbunov, Takáč, Richtárik 2019")
@dataclass(frozen=True)
class DIANA(GradientMethod):
    """DIANA: compressed differences between gradients and shifts that learn them.

    Δ_i = C_i(g_i − h_i), h_i ← h_i + a Δ_i; the estimate is h + mean Δ_i, then h ← h + a mean Δ_i (C8.1).

    All h_i and h = mean h_i start at zero. As the h_i learn the gradients at the optimum, what is compressed vanishes
    there, so that heterogeneous data leave no error. The momentum form is the optimizer's own momentum. Needs an
    unbiased compressor.

    Args:
        compressor: an unbiased one, such as mlmc(stopk(s=0.01)).
        shift_rate: a; none: 1/(1 + omega). realised: each worker takes a_i = 1/(1 + omega(v)), omega(v) = E‖C(v) −
            v‖²/‖v‖² for its very v = g_i − h_i, and sends it along, 8 bytes; h ← h + mean a_i Δ_i. It is never smaller,
            and larger where v is easy to compress. The bound for nonconvex f holds as it is, that for strongly convex f
            does not (C19.2).

    References:
        Mishchenko et al., "Distributed Learning with Compressed Gradient Differences", 2019,
            https://arxiv.org/abs/1901.09269
    """

    compressor: Compressor
    shift_rate: float | Literal["realised"] | None = None

    def __post_init__(self) -> None:
        require_unbiased(self, self.compressor)
        rate = self.shift_rate
        fits = not isinstance(rate, float) or 0 < rate <= 1
        check_that(fits, self, "shift_rate", "a number in (0, 1], or realised, is allowed")

    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        return {"shift": torch.zeros(d, dtype=dtype)}

    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        shift = state["shift"].clone()
        code = self.compressor.encode(gradient - shift, step.uplink(rank))
        rate = self._rate(gradient - shift)
        code.add_to(shift, rate)
        return with_number(code, rate) if self.shift_rate == "realised" else code, {"shift": shift}

    def server_init(self, d: int, dtype: torch.dtype) -> State:
        return {"shift": torch.zeros(d, dtype=dtype)}

    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        mean = mean_of(codes)
        estimate = state["shift"] + mean
        require_finite(estimate.to(codes[0].dtype))
        if self.shift_rate != "realised":
            return estimate, {"shift": state["shift"] + self._rate(mean) * mean}
        shift = state["shift"].clone()
        for code in codes:
            code.add_to(shift, number_beside(code) / len(codes))
        return estimate, {"shift": shift}

    def _rate(self, difference: Tensor) -> float:
        """a for what is compressed; a realised one as the wire carries it."""
        if self.shift_rate is None:
            return shift_rate_of(self, self.compressor, len(difference))
        if self.shift_rate != "realised":
            return self.shift_rate
        energy = float(difference.double().square().sum())
        rate = 1 / (1 + self.compressor.variance(difference) / energy) if energy else 1.0
        return round_scalar(rate, difference.dtype, None)
