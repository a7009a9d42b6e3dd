"""Backward passes whose exchanged gradients are compressed a second time, or thrown away."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, final

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from telegrad.errors import TelegradWarning

__all__ = ["WastedPasses"]

_ADDED_TO = (
    "gradients that were exchanged, and neither used by an optimizer nor zeroed since, are compressed again: to "
    "accumulate, run all passes but the last, forward and backward, under model.no_sync()"
)
_THROWN_AWAY = (
    "gradients that were exchanged were zeroed before any optimizer used them, and {method} remembers them all the "
    "same: run passes whose gradients are thrown away, as a generator's through the discriminator, under "
    "handle.left_out()"
)


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
            hook = get_gradient_edge(self._watched).node.register_prehook(lambda _: _look(me))
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
        if not self._exchanged:
            return
        still_there = gradient is not None and (gradient._version == self._version or bool(gradient.any()))
        if not self._used:
            self._added = still_there
            if not still_there and self._ever_used and self._remembers:
                text, self._remembers = _THROWN_AWAY.format(method=self._remembers), None
                warnings.warn(text, TelegradWarning, stacklevel=3)
        self._exchanged = still_there


def _look(me: weakref.ref[WastedPasses]) -> None:
    passes = me()
    if passes is not None and passes._watched is not None:
        passes._look(passes._watched.grad)
