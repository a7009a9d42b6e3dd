"""What a run leaves: its evaluations, its account and the final parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from telegrad.runtime.ledger import Ledger
from telegrad.runtime.setting import Record
from telegrad.workloads.base import Task

__all__ = ["Result", "evaluation"]


@dataclass(frozen=True)
class Result:
    """What a run of `tg.simulate` leaves.

    Attributes:
        records: one dict an evaluation, the first at step 0 and the last at the last step, with the keys `step`,
            `epoch`, `bits_up_per_worker`, `bits_down_per_worker`, `paper_bits_up_per_worker`, `train_loss` (mean over
            the steps since the last evaluation; NaN at step 0), `validation`, `test` (the metric on these splits),
            `seconds` (training so far, without evaluation), `encode_seconds` (the part of it spent in the methods'
            worker and server steps).
        ledger: the account of bits.
        parameters: the final ones by name.
        metric: what `validation` and `test` measure.
        higher_is_better: whether more of it is better.
        seconds_per_step: of training, on this machine.
        encode_seconds_per_step: the part of it spent in the methods' worker and server steps.

    Example:
        >>> result = tg.simulate("quadratic(d=10)", "topk(k=1)", workers=2, steps=5, lr=0.1)
        >>> result.records[-1]["step"], result.ledger.steps
        (5, 5)
    """

    records: list[Record]
    ledger: Ledger
    parameters: dict[str, Tensor]
    metric: str
    higher_is_better: bool
    seconds_per_step: float
    encode_seconds_per_step: float


def evaluation(
    task: Task,
    model: nn.Module,
    account: Ledger,
    examples_a_gradient: float,
    step: int,
    losses: Sequence[float],
    seconds: float,
    encode_seconds: float,
    simulated_seconds: float | None = None,
) -> Record:
    """The record of `model` as it is after so many steps, with the account and the losses since the last one."""
    record: Record = {
        "step": step,
        "epoch": sum(account.gradients) * examples_a_gradient / len(task.train),
        "bits_up_per_worker": account.bits_up_per_worker,
        "bits_down_per_worker": account.bits_down_per_worker,
        "paper_bits_up_per_worker": account.paper_bits_up_per_worker,
        "train_loss": math.fsum(losses) / len(losses) if losses else math.nan,
        "validation": task.score(model, task.validation),
        "test": task.score(model, task.test),
        "seconds": seconds,
        "encode_seconds": encode_seconds,
    }
    return record if simulated_seconds is None else {**record, "simulated_seconds": simulated_seconds}
