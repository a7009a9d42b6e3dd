"""A stand-in for the simulator: plausible learning curves, exact and at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from telegrad.errors import DivergedError
from telegrad.random import Key
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.simulate import Result
from telegrad.workloads.base import Task

PARAMETERS = 1000

# Bits a worker and step by field, and how much slower than plain gradients a method learns.
_METHODS = {
    "sgd(identity)": ({"value": 32 * PARAMETERS, "header": 64}, 1.0),
    "sgd(topk(k=0.01))": ({"value": 320, "index": 88, "header": 96}, 0.5),
    "sgd(randk(k=0.01))": ({"value": 320, "header": 96}, 0.2),
    "sgd(mlmc(stopk(s=0.01)))": ({"value": 320, "index": 90, "level": 7, "header": 96}, 0.8),
    "sgd(mlmc(stopk(s=0.01, values=sign)))": ({"sign": 10, "index": 90, "level": 7, "scale": 32, "header": 96}, 0.7),
}
_OTHER = ({"value": 320, "index": 88, "header": 96}, 0.6)


class FakeSimulate:
    """Called as `simulate` is. Keeps its calls; may be told to raise in the k-th, and to bend a run's metric."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float, int]] = []
        self.settings: list[dict[str, Any]] = []
        self.interrupt_at: int | None = None
        self.bend: Callable[[str, float, int, dict[str, Any]], None] = lambda method, lr, seed, record: None
        self.diverges: Callable[[str, float, int], bool] = lambda method, lr, seed: lr > 1.0

    def __call__(
        self,
        workload: Task,
        method: str,
        *,
        lr: float,
        seed: int,
        steps: int,
        workers: int,
        progress: Callable[[Any], None],
        evaluate_every: int | None = None,
        **settings: Any,
    ) -> Result:
        self.calls.append((method, lr, seed))
        self.settings.append(settings)
        fields, speed = _METHODS.get(method, _OTHER)
        moments = sorted({*range(0, steps, evaluate_every or max(1, steps // 10)), steps})
        noise = Key(seed).fold(method=method, lr=str(lr)).normal(len(moments)).tolist()
        records: list[dict[str, float | int]] = []
        ledger = Ledger(workers)
        for step, wobble in zip(moments, noise, strict=True):
            ledger.up = [Counter({name: bits * step for name, bits in fields.items()}) for _ in range(workers)]
            ledger.down = [Counter(value=32 * PARAMETERS * step, header=64 * step) for _ in range(workers)]
            ledger.paper_up = [64 * step] * workers
            ledger.steps = step
            learned = 0.97 * (1 - math.exp(-12 * speed * min(lr, 0.5) * step / steps)) + 0.003 * wobble * (step > 0)
            record: dict[str, float | int] = {
                "step": step,
                "epoch": step / 20,
                "bits_up_per_worker": ledger.bits_up_per_worker,
                "bits_down_per_worker": ledger.bits_down_per_worker,
                "paper_bits_up_per_worker": ledger.paper_bits_up_per_worker,
                "train_loss": 2.3 * (1 - learned) if step else math.nan,
                "validation": 0.1 + 0.9 * learned,
                "test": 0.1 + 0.89 * learned,
                "seconds": 0.01 * step,
                "encode_seconds": 0.002 * step,
            }
            self.bend(method, lr, seed, record)
            records.append(record)
            if self.interrupt_at == len(self.calls) and step >= steps // 2:
                raise KeyboardInterrupt
            progress(record)
            if self.diverges(method, lr, seed) and step >= steps // 2:
                raise DivergedError("ten steps in a row had a non-finite gradient", records=records)
        return Result(
            records=records,
            ledger=ledger,
            parameters={"weight": torch.zeros(PARAMETERS)},
            metric="accuracy",
            higher_is_better=True,
            seconds_per_step=0.01,
            encode_seconds_per_step=0.002,
        )
