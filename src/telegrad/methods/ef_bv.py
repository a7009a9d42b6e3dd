"""EF-BV: one method for compressors that are biased, random, or both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import SpecError
from telegrad.methods.base import State, Step, mean_of, require_finite
from telegrad.methods.gradient_method import GradientMethod
from telegrad.spec import check_that, register
from telegrad.wire.code import Code

__all__ = ["EFBV"]


@register("ef_bv", example="ef_bv(mix(k=0.01, k2=0.01))", source="C7; Condat, Yi, Richtárik, NeurIPS 2022")
@dataclass(frozen=True)
class EFBV(GradientMethod):
    """EF-BV: one method between EF21 and DIANA for biased and unbiased compressors.

    Δ_i = C_i(g_i − h_i), h_i ← h_i + λ Δ_i; the estimate is h + ν mean Δ_i, then h ← h + λ mean Δ_i (C7.1).

    All h_i start at zero. `shift_rate` is λ and `estimate_rate` is ν; by default λ = min(1, (1 − η)/((1 − η)² + ω))
    from the compressor's relative bias η and variance ω at d, and ν the same with ω/M, as workers draw independently
    (C7.2). λ = ν = 1 is EF21, and ν = 1, λ = 1/(1 + ω) is DIANA. Needs a compressor with η below 1.

    Args:
        compressor: one with a relative bias below 1.
        shift_rate: λ; none: theory's.
        estimate_rate: ν; none: theory's.

    References:
        Condat, Yi and Richtárik, "EF-BV: A Unified Theory of Error Feedback and Variance Reduction Mechanisms for
            Biased and Unbiased Compression in Distributed Optimization", 2022, https://arxiv.org/abs/2205.04180
    """

    compressor: Compressor
    shift_rate: float | None = None
    estimate_rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("shift_rate", "estimate_rate"):
            value = getattr(self, name)
            check_that(value is None or 0 < value <= 1, self, name, "a number in (0, 1] is allowed")

    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        return {"shift": torch.zeros(d, dtype=dtype)}

    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        code = self.compressor.encode(gradient - state["shift"], step.uplink(rank))
        shift = state["shift"].clone()
        code.add_to(shift, self.rates(len(shift), step.workers)[0])
        return code, {"shift": shift}

    def server_init(self, d: int, dtype: torch.dtype) -> State:
        return {"shift": torch.zeros(d, dtype=dtype)}

    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        mean = mean_of(codes)
        shift_rate, estimate_rate = self.rates(len(mean), step.workers)
        estimate = state["shift"] + estimate_rate * mean
        require_finite(estimate.to(codes[0].dtype))
        return estimate, {"shift": state["shift"] + shift_rate * mean}

    def rates(self, d: int, workers: int) -> tuple[float, float]:
        """λ and ν for vectors of d entries and M workers (C7.2). Raises `SpecError` where the theory gives none."""
        found = []
        for given, divided in ((self.shift_rate, 1), (self.estimate_rate, workers)):
            if given is not None:
                found.append(given)
                continue
            eta, omega = self.compressor.eta(d), self.compressor.spread(d)
            if not (eta < 1 and math.isfinite(omega)):
                raise SpecError(
                    f"{self}: {self.compressor} has a relative bias of {eta:g} and a variance of {omega:g} for {d} "
                    "entries, and the theory wants a bias below 1 and a finite variance; give both rates, for "
                    "example ef_bv(…, shift_rate=0.1, estimate_rate=1.0)"
                )
            found.append(min(1.0, (1 - eta) / ((1 - eta) ** 2 + omega / divided)))
        return found[0], found[1]
