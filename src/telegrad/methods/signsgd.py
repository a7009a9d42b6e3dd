"""signSGD: every worker sends the signs of its gradient, or of its momentum; the server votes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from telegrad.compressors.sign import signs_of
from telegrad.compressors.terngrad import TernGrad
from telegrad.errors import NonFiniteError
from telegrad.kernels.statistics.magnitudes import largest_magnitude
from telegrad.methods.base import State, Step, mean_of
from telegrad.methods.downlink import Downlink
from telegrad.methods.gradient_method import GradientMethod
from telegrad.spec import check_that, register
from telegrad.wire.code import Code, Term
from telegrad.wire.positions import All
from telegrad.wire.values import Grid

__all__ = ["SignSGD"]


@register("signsgd", example="signsgd(vote=majority)", source="C3; Bernstein et al. 2018; Bernstein et al. 2019")
@dataclass(frozen=True)
class SignSGD(GradientMethod):
    """signSGD: the sign of every entry, by the mean or a majority vote of the workers.

    Worker i sends sign(g_i), one bit an entry; the estimate is their mean, or the sign of their sum (C3).

    The estimate does not tell how large the gradient is: the learning rate alone says how far a step goes. Where
    workers' data differ, the point where signs cancel is not the optimum (C3, test T2).

    Args:
        vote: mean, as in distributed sign SGD, or majority, whose estimate of −1, 0 or 1 comes down in less than two
            bits an entry from a server. `ties` of a majority: zero leaves the entry where it is, plus counts as +1.
            `momentum` β of signum: m_i ← β m_i + (1 − β) g_i, and sign(m_i) is sent. sign(0) is +1; a gradient that is
            all zero sends zeros.
        momentum: β of signum in [0, 1); 0: the gradient's own signs.
        ties: zero or plus.

    References:
        Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", 2018,
            https://arxiv.org/abs/1802.04434
        Bernstein et al., "signSGD with Majority Vote is Communication Efficient and Fault Tolerant", 2019,
            https://arxiv.org/abs/1810.05291
    """

    vote: Literal["mean", "majority"] = "mean"
    momentum: float = 0.0
    ties: Literal["zero", "plus"] = "zero"

    def __post_init__(self) -> None:
        check_that(0 <= self.momentum < 1, self, "momentum", "a weight of the old momentum in [0, 1) is allowed")

    def downlink(self) -> Downlink | None:
        # TernGrad is exact where all entries are −1, 0 or 1.
        return Downlink(TernGrad(), exact=True) if self.vote == "majority" else None

    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        return {"average": torch.zeros(d, dtype=dtype)} if self.momentum else {}

    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        if self.momentum:
            gradient = self.momentum * state["average"] + (1 - self.momentum) * gradient
            state = {"average": gradient}
        return _signs(gradient), state

    def server_init(self, d: int, dtype: torch.dtype) -> State:
        return {}

    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        mean = mean_of(codes, workspace=step.workspace)
        if self.vote == "mean":
            return mean, state
        if self.ties == "plus":
            mean = torch.where(mean == 0, 1.0, mean)
        return mean.sign(), state


def _signs(v: Tensor) -> Code:
    """One bit an entry; nothing for a vector of zeros."""
    largest = largest_magnitude(v)
    if not math.isfinite(largest):
        raise NonFiniteError("the gradient holds NaN or infinity")
    if largest == 0:
        return Code(tuple(v.shape), v.dtype)
    return Code(tuple(v.shape), v.dtype, (Term(All(len(v)), Grid(signs_of(v), 1.0).rounded(v.dtype, None)),))
