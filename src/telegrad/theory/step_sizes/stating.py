"""How step sizes are stated: the decorators that say their unit, and a division that knows what is in the way."""

from __future__ import annotations

import math
from functools import partial

from telegrad.theory.statements import statement

__all__ = ["over", "parameter", "step_size"]

step_size = partial(statement, kind="step size", unit="length² / loss")
"""Decorator of a step size, in length² / loss, as 1/L is."""

parameter = partial(statement, kind="step size", unit="1")
"""Decorator of another parameter of a method, without a unit."""


def over(numerator: float, denominator: float) -> float:
    """numerator / denominator; infinite where the denominator is 0, since nothing then limits the step."""
    return numerator / denominator if denominator else math.inf
