"""Partial participation: a cohort of the workers takes part in a step."""

from __future__ import annotations

from telegrad.methods.base import Round, Step
from telegrad.spec import Amount

__all__ = ["cohort_size", "participating", "share_of"]


def cohort_size(participation: Amount, workers: int) -> int:
    """How many of the workers take part: a count, or a fraction of them, at least one."""
    if isinstance(participation, float):
        return max(1, round(participation * workers))
    return min(participation, workers)


def participating(participation: Amount | None, step: Step) -> Round:
    """A round of a uniformly drawn cohort; of all workers where `participation` is None."""
    if participation is None:
        return Round()
    return Round(cohort=step.drawn_cohort(cohort_size(participation, step.workers)))


def share_of(codes: int, participation: Amount | None, step: Step) -> float:
    """The part of all workers that sent: 1 where all always do."""
    return 1.0 if participation is None else codes / max(1, step.workers)
