"""Outer optimizers: what moves the global parameters by the mean of what the workers have done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from telegrad.spec import Registered, check_that, register

__all__ = ["OuterNesterov", "OuterOptimizer", "OuterSGD"]


class OuterOptimizer(Registered, ABC):
    """A torch optimizer in words. Its gradient is the mean of the workers' differences θ − θ_i, the outer gradient."""

    kind: ClassVar[str] = "outer optimizer"

    @abstractmethod
    def make(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The torch optimizer of the global parameters."""


@register("sgd", example="sgd(lr=1)", source="FedAvg's server step; torch.optim.SGD")
@dataclass(frozen=True)
class OuterSGD(OuterOptimizer):
    """θ ← θ − lr Δ: at lr = 1 the mean of the workers' parameters."""

    lr: float = 1.0

    def __post_init__(self) -> None:
        check_that(self.lr > 0, self, "lr", "a number above 0 is allowed")

    def make(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.lr)


@register(
    "nesterov",
    example="nesterov(lr=0.7, momentum=0.9)",
    source="Douillard et al. 2023 (DiLoCo, arXiv 2311.08105); torch.optim.SGD",
)
@dataclass(frozen=True)
class OuterNesterov(OuterOptimizer):
    """m ← momentum · m + Δ; θ ← θ − lr (Δ + momentum · m), m at first zero."""

    lr: float = 0.7
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_that(self.lr > 0, self, "lr", "a number above 0 is allowed")
        check_that(0 < self.momentum < 1, self, "momentum", "a number between 0 and 1 is allowed")

    def make(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, nesterov=True)
