"""Learning-rate schedules."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["Schedule", "learning_rate"]

Schedule = Literal["constant", "linear", "cosine"]


def learning_rate(schedule: Schedule, peak: float, step: int, steps: int, warmup_steps: int) -> float:
    """The learning rate of `step` (from 0) of `steps`.

    It rises linearly to `peak` over the first `warmup_steps` (step 0 gets peak / warmup_steps), then stays, or falls
    to zero at the end: linearly, or as peak (1 + cos πt) / 2 where t is the share of steps done after the warm-up.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    if schedule == "linear":
        return peak * (1 - done)
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * done)) / 2
    return peak
