"""A simulated clock: how long each worker takes for a gradient and for what it sends and receives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from telegrad.errors import ConfigError

__all__ = ["Clock"]


@dataclass(frozen=True)
class Clock:
    """Seconds that simulated work takes; every entry is one number for all workers, or a sequence with one a worker.

    `gradient`: seconds for a gradient on one batch. `message`: seconds for a message sent up, whatever its length.
    `latency`: seconds added to every message, up and down. `bandwidth`: bits a second, up and down. A message of b bits
    takes message + latency + b / bandwidth seconds up, and latency + b / bandwidth down; with the defaults only
    gradients and the seconds per message count.
    """

    gradient: float | Sequence[float] = 0.0
    message: float | Sequence[float] = 0.0
    latency: float | Sequence[float] = 0.0
    bandwidth: float | Sequence[float] = math.inf

    def __post_init__(self) -> None:
        for name in ("gradient", "message", "latency", "bandwidth"):
            value = getattr(self, name)
            if hasattr(value, "tolist"):  # numpy's and torch's
                value = value.tolist()
                object.__setattr__(self, name, value)
            each = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
            lowest = "above 0" if name == "bandwidth" else "from 0"
            numbers = all(isinstance(one, Real) and not isinstance(one, bool) for one in each)
            if not numbers or not all(one > 0 if name == "bandwidth" else 0 <= one < math.inf for one in each):
                raise ConfigError(
                    f"Clock({name}={value!r}): seconds and bits a second {lowest} are allowed, one number or one for "
                    "each worker"
                )

    def check(self, workers: int) -> None:
        """Raise `ConfigError` where an entry is a sequence of another length."""
        for name in ("gradient", "message", "latency", "bandwidth"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and len(value) != workers:
                raise ConfigError(
                    f"Clock({name}=…) has {len(value)} entries for {workers} workers: write one a worker, or one number"
                )

    def gradient_seconds(self, rank: int) -> float:
        """Seconds that worker `rank` takes for a gradient on one batch."""
        return _of(self.gradient, rank)

    def up_seconds(self, rank: int, messages: int, bits: float = 0.0) -> float:
        """Seconds until so many messages of worker `rank`, of so many bits together, have arrived."""
        return messages * (_of(self.message, rank) + _of(self.latency, rank)) + bits / _of(self.bandwidth, rank)

    def down_seconds(self, rank: int, bits: float) -> float:
        """Seconds until a message of so many bits has come down to worker `rank`."""
        return _of(self.latency, rank) + bits / _of(self.bandwidth, rank)


def _of(value: float | Sequence[float], rank: int) -> float:
    return float(value[rank] if isinstance(value, Sequence) else value)
