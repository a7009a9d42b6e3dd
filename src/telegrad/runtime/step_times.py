"""How long a step of training takes, and how long of it gradients are waited for."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import torch
from torch import nn

__all__ = ["StepTimes", "now"]


def now(device: torch.device) -> float:
    """Seconds on this process's clock, once what was started on a GPU is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class _ForwardClock:
    """When the newest forward pass began."""

    began = math.nan

    def __call__(self, module: Any, inputs: Any) -> None:
        self.began = time.perf_counter()


class StepTimes:
    """Seconds of the steps that are timed, from first bucket to first bucket: so all that a step does counts.

    `blocked`: seconds that the backward pass of this step stood still for an exchange.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._device = device
        self._began = self._computed_at = math.nan
        self._forward = _ForwardClock()
        self._hook = model.register_forward_pre_hook(self._forward)
        self.timed, self.blocked = False, 0.0
        self.forget()

    def forget(self) -> None:
        """What was timed so far; what is timed next counts anew."""
        self._periods: list[float] = []
        self._waits: list[float] = []

    def begin_step(self, timed: bool) -> None:
        """The first bucket of a step is there. `timed`: this step is to be."""
        self.blocked = 0.0
        before, self.timed = self.timed, timed
        if before or timed:
            at = now(self._device)
            if before:
                self._periods.append(at - self._began)
            self._began = at

    def computed(self) -> None:
        """All gradients of the step are computed."""
        self._computed_at = now(self._device)

    def averaged(self) -> None:
        """All of them are averaged."""
        self._waits.append(now(self._device) - self._computed_at + self.blocked)

    def medians(self) -> tuple[float, float, float]:
        """A whole step, what it computes, what it waits; the first and the last NaN where no step was timed, and then
        the time since the newest forward pass began stands for what it computes.
        """
        period, waits = (statistics.median(own) if own else math.nan for own in (self._periods, self._waits))
        if self._periods and self._waits:
            return period, max(period - waits, 1e-6), waits
        return period, now(self._device) - self._forward.began, waits

    @property
    def any(self) -> bool:
        """Whether a whole step was timed."""
        return bool(self._periods)

    def no_forward(self) -> None:
        """Note forward passes no more: the hook on the model goes."""
        self._hook.remove()
