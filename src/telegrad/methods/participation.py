"""Partial participation: who takes part in a step, and with what weight what they send counts."""

from __future__ import annotations

from telegrad.errors import SpecError
from telegrad.methods.base import Round, Step
from telegrad.spec import Amount, Registered, check_amount, check_that

__all__ = ["Participation", "check_participation", "drawn_round", "inclusion", "participating", "share_of"]

Participation = int | float | tuple | None
"""A count of workers, a fraction of them, or a probability for each; None for all."""


def cohort_size(participation: Amount, workers: int) -> int:
    """How many of the workers take part: a count, or a fraction of them, at least one."""
    if isinstance(participation, float):
        return max(1, round(participation * workers))
    return min(participation, workers)


def participating(participation: Amount, step: Step) -> Round:
    """A round of a uniformly drawn cohort."""
    return Round(cohort=step.drawn_cohort(cohort_size(participation, step.workers)))


def share_of(codes: int, participation: Amount | None, step: Step) -> float:
    """The part of all workers that sent: 1 where all always do."""
    return 1.0 if participation is None else codes / max(1, step.workers)


def check_participation(owner: Registered, participation: Participation, sampling: str) -> None:
    """Refuse what is neither a count, a fraction, nor probabilities, or does not go with the `sampling`."""
    check_that(sampling in ("uniform", "independent"), owner, "sampling", "uniform or independent is allowed")
    if isinstance(participation, tuple):
        fine = all(isinstance(p, (int, float)) and 0 < p <= 1 for p in participation)
        check_that(
            fine and sampling == "independent",
            owner,
            "participation",
            "a probability in (0, 1] for each worker is allowed, with sampling=independent",
        )
    elif sampling == "independent":
        fine = isinstance(participation, float) and 0 < participation <= 1
        check_that(fine, owner, "participation", "a probability in (0, 1] is allowed with sampling=independent")
    else:
        check_amount(owner, "participation", of="the workers")


def drawn_round(participation: Participation, sampling: str, step: Step, local_steps: int = 1) -> Round:
    """The round of those whom the step's common stream draws; nothing is sent where nobody is."""
    if participation is None:
        return Round(local_steps=local_steps)
    if sampling == "uniform":
        assert not isinstance(participation, tuple)
        size = cohort_size(participation, step.workers)
        return Round(cohort=step.drawn_cohort(size), local_steps=local_steps)
    ranks = range(step.workers)
    drawn = tuple(r for r in ranks if step.coin(_probability(r, participation, step), f"takes part {r}"))
    return Round(cohort=drawn, sends=bool(drawn), local_steps=local_steps)


def inclusion(rank: int, participation: Participation, sampling: str, step: Step) -> float:
    """The weight 1/(M p_i) of what worker `rank` sends, p_i the probability that it takes part: unbiased (E7)."""
    if participation is None:
        return 1 / step.workers
    if sampling == "uniform":
        assert not isinstance(participation, tuple)
        return 1 / cohort_size(participation, step.workers)
    return 1 / (step.workers * _probability(rank, participation, step))


def _probability(rank: int, participation: Participation, step: Step) -> float:
    if not isinstance(participation, tuple):
        assert participation is not None
        return participation
    if len(participation) != step.workers:
        raise SpecError(f"participation has {len(participation)} probabilities for {step.workers} workers")
    return float(participation[rank])
