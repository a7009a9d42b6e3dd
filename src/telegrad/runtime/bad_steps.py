"""Steps that all ranks leave out, because a gradient was not finite on one of them."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Container
from typing import Any, final

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.weak import WeakTensorKeyDictionary

from telegrad.errors import NonFiniteError, TelegradWarning

__all__ = ["BadSteps"]


@final
class BadSteps:
    """Counts bad steps, and lets torch optimizers, of any kind, leave them out.

    An optimizer does not get to see the gradients that a bad backward pass left in the parameters `own()`: nor what
    clipping made of them, nor those that a closure computes within `optimizer.step(closure)`. Gradients that were set
    afresh, by hand or by torch.distributed.checkpoint, pass. `newest`: whether the newest backward pass was bad;
    `count`: how many were. `before_step` is called before every step of an optimizer
    of these parameters. The hook in all optimizers ends with `close`, or with this object: it holds nothing alive.
    """

    def __init__(self, own: Callable[[], Container[Tensor]], before_step: Callable[[], None] | None = None) -> None:
        self._own, self._before = own, before_step
        self.newest, self.count = False, 0
        self._spoilt = WeakTensorKeyDictionary()
        hook = register_optimizer_step_pre_hook(_weakly(weakref.ref(self)))
        self.close = weakref.finalize(self, hook.remove)
        self.close.atexit = False

    def begin(self) -> None:
        """A new backward pass, or training that goes on from elsewhere: what it leaves is not bad yet."""
        self.newest = False
        self._spoilt.clear()

    def add(self, step: int, error: NonFiniteError) -> None:
        """Note that the newest backward pass, `step`, is bad; a second time changes nothing."""
        if not self.newest:
            self.newest, self.count = True, self.count + 1
            if self.count == 1:
                text = f"step {step} is skipped on all ranks: {error}"
                warnings.warn(text, TelegradWarning, stacklevel=3)

    def mark(self, parameters: Any) -> None:
        """After a bad backward pass: its gradients lie in these parameters now."""
        for parameter in parameters:
            if parameter.grad is not None:
                self._spoilt[parameter.grad] = True

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None and self._before is None and not self.newest:
            return None
        own = self._own()
        if not any(parameter in own for group in optimizer.param_groups for parameter in group["params"]):
            return None
        self._use(optimizer)
        if closure is None:
            return None

        def careful() -> Any:
            loss = closure()
            self._use(optimizer)
            return loss

        return ((args[0], careful, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": careful})

    def _use(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the gradients of a bad backward pass away from the optimizer's parameters."""
        if self._before is not None:
            self._before()
        if not self.newest:
            return
        own = self._own()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter in own and self._is_spoilt(parameter.grad):
                    parameter.grad = None

    def _is_spoilt(self, gradient: Tensor) -> bool:
        # A sharded gradient (DTensor): importing its class takes longer than all of telegrad.
        local = gradient.to_local() if hasattr(gradient, "to_local") else gradient
        return gradient in self._spoilt or not bool(local.isfinite().all())


def _weakly(of: weakref.ref[BadSteps]) -> Callable[..., Any]:
    @torch.compiler.disable  # compiled, an optimizer's step would be compiled anew whenever a gradient is bad
    def before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        bad_steps = of()
        return None if bad_steps is None else bad_steps._before_step(optimizer, args, kwargs)

    return before_step
