"""How bounds are stated: a decorator for each unit, and the check that theory covers the step size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from telegrad.errors import ConfigError
from telegrad.theory.statements import statement

__all__ = ["bound", "gradient_bound", "length_bound", "loss_bound", "share_bound", "within"]


def bound(method: str, case: str, unit: str, source: str, step: Callable[..., Any] | None = None) -> Any:
    """Decorator: the function bounds something of `method`, in this unit. `step`: the step size that it holds at."""
    return statement(method, "bound", case, unit, source, step)


loss_bound = partial(bound, unit="loss")
"""Decorator of a bound on f − f*."""

gradient_bound = partial(bound, unit="gradient²")
"""Decorator of a bound on the mean of ‖∇f‖²."""

length_bound = partial(bound, unit="length²")
"""Decorator of a bound on ‖x − x*‖²."""

share_bound = partial(bound, unit="1")
"""Decorator of a bound on a share of what there was at the start, or on a number of steps."""


def within(lr: float, limit: float) -> None:
    """Raise `ConfigError` where `lr` is more than the largest step size that theory covers."""
    if lr > limit * (1 + 1e-12):
        raise ConfigError(f"lr={lr:g} is more than theory allows here: step sizes up to {limit:.6g} are covered")
