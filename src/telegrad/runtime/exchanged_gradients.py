"""What becomes of exchanged gradients: bad ones, which no optimizer is to use, and those that are compressed again, or
thrown away.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence, Set
from functools import partial
from operator import itemgetter
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.weak import WeakTensorKeyDictionary

from telegrad.errors import NonFiniteError, TelegradWarning

__all__ = ["BadSteps", "WastedPasses"]

_ADDED_TO = (
    "gradients that were exchanged, and neither used by an optimizer nor zeroed since, are compressed again: to "
    "accumulate, run all passes but the last, forward and backward, under model.no_sync()"
)
_THROWN_AWAY = (
    "gradients that were exchanged were zeroed before any optimizer used them, and {method} remembers them all the "
    "same: run passes whose gradients are thrown away, as a generator's through the discriminator, under "
    "handle.left_out()"
)


_PARAMETERS = itemgetter("params")


@final
class BadSteps:
    """Counts bad steps, and lets torch optimizers, of any kind, leave them out.

    An optimizer does not get to see the gradients that a bad backward pass left in the parameters `own()`: nor what
    clipping made of them, nor those that a closure computes within `optimizer.step(closure)`. Gradients that were set
    afresh, by hand or by torch.distributed.checkpoint, pass. `newest`: whether the newest backward pass was bad;
    `count`: how many were. `before_step` is called before every step of an optimizer
    of these parameters. The hook in all optimizers ends with `close`, or with this object: it holds nothing alive.
    """

    def __init__(self, own: Callable[[], Set[Tensor]], before_step: Callable[[], None] | None = None) -> None:
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
        if all(map(own.isdisjoint, map(_PARAMETERS, optimizer.param_groups))):
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


@final
class WastedPasses:
    """Warns once of each kind, where it is true.

    It looks at one parameter, the last, whenever autograd is about to add to its gradient, and whether a torch
    optimizer made a step since the last exchange. A gradient that is as it was written after the exchange, or not zero,
    is still there; if no optimizer used it, it is compressed again. One that is gone was thrown away: this matters to
    a method with memory, given as `remembers`; and it is said only where torch optimizers are used at all.
    """

    def __init__(self, parameters: Sequence[Tensor], remembers: str | None) -> None:
        self._watched = next((p for p in reversed(parameters) if p.requires_grad and p.numel()), None)
        self._remembers = remembers
        self._exchanged = self._added = self._used = self._ever_used = False
        self._version = -1
        self.close: Callable[[], Any] = lambda: None
        if self._watched is not None:
            me = weakref.ref(self)
            hook = get_gradient_edge(self._watched).node.register_prehook(partial(_look, me))
            self.close = end = weakref.finalize(self, hook.remove)
            end.atexit = False

    def handed_over(self) -> None:
        """The last gradient of a backward pass is going to be exchanged."""
        if self._added:
            self.close()
            warnings.warn(_ADDED_TO, TelegradWarning, stacklevel=4)
        self._exchanged, self._added, self._used, self._version = True, False, False, -1

    def written(self, bad: bool) -> None:
        """The estimates lie in the parameters' gradients now; bad ones were not remembered, and are to be zeroed."""
        gradient = self._watched.grad if self._watched is not None else None
        self._version = -1 if gradient is None else gradient._version
        self._exchanged = not bad

    def used(self) -> None:
        """A torch optimizer makes a step with the gradients."""
        self._used = self._ever_used = True

    def _look(self, gradient: Tensor | None) -> None:
        still_there = gradient is not None and (gradient._version == self._version or bool(gradient.any()))
        if not self._used:
            self._added = still_there
            if not still_there and self._ever_used and self._remembers:
                text, self._remembers = _THROWN_AWAY.format(method=self._remembers), None
                warnings.warn(text, TelegradWarning, stacklevel=3)
        self._exchanged = still_there


def _look(of: weakref.ref[WastedPasses], _: Any) -> None:
    passes = of()
    if passes is not None and passes._exchanged and passes._watched is not None:
        passes._look(passes._watched.grad)
