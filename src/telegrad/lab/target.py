"""The metric that counts as trained, and when a run reached it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telegrad.lab.experiment import Experiment, MethodEntry
from telegrad.lab.finished_run import FinishedRun
from telegrad.spec import Registered, build

__all__ = ["Target", "first_reaching", "is_uncompressed", "target_of"]

_SHARE = 0.95


@dataclass(frozen=True)
class Target:
    """A value of the validation metric, the rule behind it in words, and the label of the uncompressed method.

    `value` is None where the rule finds none, `baseline` is None where no method is uncompressed.
    """

    value: float | None
    rule: str
    baseline: str | None


def target_of(experiment: Experiment, chosen: Mapping[str, Sequence[FinishedRun]]) -> Target:
    """The target as configured, or 95 % of the way that the best uncompressed method's validation metric went.

    Where no method is uncompressed, the best one stands in. The rule needs no sign or scale, so it serves accuracies
    and losses alike.
    `chosen` holds by label the runs at the best learning rate that did not diverge.
    """
    # The median, because a run that collapsed without diverging would drag a mean target within anyone's reach.
    ends = {label: statistics.median(run.final("validation") for run in runs) for label, runs in chosen.items() if runs}
    plain = [entry.label for entry in experiment.methods if entry.label in ends and is_uncompressed(entry)]
    candidates = plain or list(ends)
    if not candidates:
        rule = "none: every run diverged" if experiment.target is None else "as configured"
        return Target(experiment.target, rule, None)
    sign = 1.0 if chosen[candidates[0]][0].higher_is_better else -1.0
    best = max(candidates, key=lambda label: sign * ends[label])
    baseline = best if plain else None
    if experiment.target is not None:
        return Target(experiment.target, "as configured", baseline)
    starts = [run.records[0]["validation"] for run in chosen[best]]
    if None in starts or sign * (ends[best] - statistics.median(starts)) <= 0:
        return Target(None, f"none: {best} did not improve on its start", baseline)
    start = statistics.median(starts)
    which = "the uncompressed" if plain else "the best"
    rule = f"{100 * _SHARE:.0f} % of the way of {which} method, {best}, median over seeds"
    return Target(start + _SHARE * (ends[best] - start), rule, baseline)


def first_reaching(run: FinishedRun, target: float | None) -> dict[str, Any] | None:
    """The first record of a run whose validation metric is at the target or beyond; a diverged run reached nothing."""
    if target is None or run.diverged:
        return None
    for record in run.records:
        value = record["validation"]
        if value is not None and (value >= target if run.higher_is_better else value <= target):
            return record
    return None


def is_uncompressed(entry: MethodEntry) -> bool:
    """Whether a method sends plain gradients: every compressor in it is the identity."""
    parts = list(_compressors(build(entry.spec, "method")))
    return bool(parts) and all(part.spec_name == "identity" for part in parts)


def _compressors(part: Any) -> Iterator[Registered]:
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Registered):
            if value.kind == "compressor":
                yield value
            yield from _compressors(value)
