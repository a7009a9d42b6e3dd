"""A finished run: what the tables, figures and files of the lab are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["FinishedRun"]


@dataclass(frozen=True)
class FinishedRun:
    """One run to its end: a method at a learning rate and seed.

    `records` are the simulator's, one an evaluation; `ledger` is `Ledger.to_dict()`, None for a diverged run;
    `parameters` the number of entries of the model; `provenance` says on what and with which version it was run.
    """

    label: str
    spec: str
    lr: float
    seed: int
    phase: str
    diverged: bool
    records: list[dict[str, Any]]
    ledger: dict[str, Any] | None
    metric: str | None
    higher_is_better: bool | None
    parameters: int | None
    seconds_per_step: float | None
    encode_seconds_per_step: float | None
    provenance: dict[str, Any]

    def final(self, split: str) -> float:
        """The metric on `split` (validation or test) at the last step; NaN for a run that diverged before it."""
        value = self.records[-1].get(split) if self.records else None
        return math.nan if value is None else value
