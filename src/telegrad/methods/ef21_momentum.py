"""What EF21 over a momentum has in common: the momentum's weight, and a server that adds up differences."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.methods.base import State, Step
from telegrad.methods.contractive import require_contractive
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.shift import accumulate, empty_estimate
from telegrad.spec import check_that
from telegrad.wire.code import Code

__all__ = ["EF21Momentum"]


@dataclass(frozen=True)
class EF21Momentum(GradientMethod, ABC):
    """EF21 of a momentum with weight η of the new gradient; which momentum, the methods say."""

    compressor: Compressor
    momentum: float = 0.1

    def __post_init__(self) -> None:
        require_contractive(self, self.compressor)
        check_that(0.0 < self.momentum <= 1.0, self, "momentum", "a weight of the new gradient in (0, 1] is allowed")

    def server_init(self, d: int, dtype: torch.dtype) -> State:
        return empty_estimate(d, dtype)

    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        return accumulate(codes, state)
