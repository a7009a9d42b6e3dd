"""The learning curves of an experiment: what the plots of the report and the PNG files draw."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from telegrad.lab.experiment import Experiment
from telegrad.lab.finished_run import FinishedRun
from telegrad.lab.links import LINKS, transfer_seconds
from telegrad.lab.summary import alive, runs_at_best
from telegrad.lab.target import is_uncompressed

__all__ = ["AXES", "DARK", "LIGHT", "Curve", "Spread", "curves"]

# Okabe and Ito's colours, told apart with any colour vision, lightened where the page is dark. Grey comes first, as the
# first method is by habit the uncompressed one. Beyond six methods the dash and the marker tell them apart.
LIGHT = ("#4a5564", "#d55e00", "#009e73", "#b0568f", "#c98500", "#0072b2")
DARK = ("#b4bdc9", "#f0803c", "#2fc79a", "#dd8fbd", "#f0b840", "#4ba3dc")

AXES = {
    "bits_up": "uplink bits per worker",
    "bits_total": "uplink + downlink bits per worker",
    "step": "steps",
    "epoch": "epochs",
    **{link.name: f"seconds of transfer at {link.name}" for link in LINKS},
}


@dataclass(frozen=True)
class Spread:
    """A quantity over a run's evaluations: the mean, the least and the greatest over seeds; NaN where not measured."""

    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Curve:
    """A method at its best rate: `x` holds every axis (mean over seeds), `y` holds test, validation and train_loss."""

    label: str
    style: int
    x: dict[str, list[float]]
    y: dict[str, Spread]


def curves(experiment: Experiment, runs: Sequence[FinishedRun]) -> list[Curve]:
    """One curve a method that has a run which did not diverge. `style` is the method's place in the configuration."""
    found = []
    for style, entry in enumerate(experiment.methods):
        good = alive(runs_at_best(experiment, entry, runs)[1])
        if good:
            # Seeds are evaluated at the same steps, so that the i-th records belong together.
            moments = list(zip(*(run.records for run in good), strict=False))
            x = {
                axis: [statistics.fmean(_position(record, axis) for record in moment) for moment in moments]
                for axis in ("bits_up", "bits_total", "step", "epoch")
            }
            d, plain = next((run.parameters for run in good if run.parameters), 0) or 0, is_uncompressed(entry)
            for link in LINKS:
                x[link.name] = [
                    transfer_seconds(link, experiment.workers, d, step, sent, plain)
                    for step, sent in zip(x["step"], x["bits_up"], strict=True)
                ]
            y = {name: _spread(moments, name) for name in ("test", "validation", "train_loss")}
            found.append(Curve(entry.label, style, x, y))
    return found


def _position(record: dict[str, Any], axis: str) -> float:
    if axis == "bits_up":
        return float(record["bits_up_per_worker"])
    if axis == "bits_total":
        return float(record["bits_up_per_worker"] + record["bits_down_per_worker"])
    return float(record[axis])


def _spread(moments: Sequence[Sequence[dict[str, Any]]], name: str) -> Spread:
    rows = [[math.nan if record[name] is None else float(record[name]) for record in moment] for moment in moments]
    # min() and max() would skip a NaN or not, depending on the order.
    rows = [row if all(map(math.isfinite, row)) else [math.nan] for row in rows]
    return Spread(
        mean=[statistics.fmean(row) for row in rows], low=[min(row) for row in rows], high=[max(row) for row in rows]
    )
