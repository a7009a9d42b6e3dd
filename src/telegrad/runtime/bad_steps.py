"""Steps that all ranks leave out, because a gradient was not finite on one of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container
from typing import Any, final

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from telegrad.errors import NonFiniteError, TelegradWarning

__all__ = ["BadSteps"]


@final
class BadSteps:
    """Counts bad steps, and lets torch optimizers, of any kind, leave them out.

    `parameters`: whose gradients an optimizer does not get to see after a bad step; `newest`: the number of the step
    that the newest backward pass was; `before_step`: called before every step of an optimizer of these parameters.
    """

    def __init__(
        self,
        parameters: Callable[[], Container[Tensor]],
        newest: Callable[[], int],
        before_step: Callable[[], None] | None = None,
    ) -> None:
        self._parameters, self._newest, self._before = parameters, newest, before_step
        self._bad, self.count = -1, 0
        self._hook = register_optimizer_step_pre_hook(self._before_step)

    def __contains__(self, step: object) -> bool:
        """Whether `step`, the newest one, is bad."""
        return step == self._bad

    def add(self, step: int, error: NonFiniteError) -> None:
        """Note that `step` is bad; a second time changes nothing."""
        if step not in self:
            self._bad, self.count = step, self.count + 1
            if self.count == 1:
                text = f"step {step} is skipped on all ranks: {error}"
                warnings.warn(text, TelegradWarning, stacklevel=3)

    def forget(self) -> None:
        """No step is bad: training goes on from another one."""
        self._bad = -1

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        bad = self._newest() in self
        if not bad and self._before is None:
            return
        own = self._parameters()
        ours = [p for group in optimizer.param_groups for p in group["params"] if p in own]
        if ours and self._before is not None:
            self._before()
        for parameter in ours if bad else ():
            parameter.grad = None
