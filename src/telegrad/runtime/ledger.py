"""The account of bits: up and down, per worker and field, from the length of what is packed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from telegrad.wire.code import Code

__all__ = ["Ledger"]


@dataclass
class Ledger:
    """Counts every message of a run.

    `up[i]` and `down[i]` hold worker i's bits per field (header, level, index, value, sign, scale); `paper_up[i]`
    follows the MLMC paper's own accounting (`Code.paper_bits`) and is for comparison with its plots only. `levels`
    counts the levels that MLMC messages carried; `skipped_steps` counts steps dropped on all workers for a non-finite
    gradient.
    """

    workers: int
    up: list[Counter[str]] = field(default_factory=list)
    down: list[Counter[str]] = field(default_factory=list)
    paper_up: list[int] = field(default_factory=list)
    levels: Counter[int] = field(default_factory=Counter)
    messages_up: int = 0
    steps: int = 0
    skipped_steps: int = 0

    def __post_init__(self) -> None:
        self.up = self.up or [Counter() for _ in range(self.workers)]
        self.down = self.down or [Counter() for _ in range(self.workers)]
        self.paper_up = self.paper_up or [0] * self.workers

    def uplink(self, worker: int, code: Code) -> None:
        """Book a message from `worker` to the server."""
        self.up[worker].update(code.fields)
        self.paper_up[worker] += code.paper_bits
        self.messages_up += 1
        if code.level:
            self.levels[code.level] += 1

    def downlink(self, code: Code) -> None:
        """Book a message that the server sends to every worker."""
        for account in self.down:
            account.update(code.fields)

    @property
    def bits_up_per_worker(self) -> float:
        """Bits sent by a worker so far, mean over workers."""
        return sum(account.total() for account in self.up) / self.workers

    @property
    def bits_down_per_worker(self) -> float:
        """Bits received by a worker so far, mean over workers."""
        return sum(account.total() for account in self.down) / self.workers

    @property
    def paper_bits_up_per_worker(self) -> float:
        """Bits sent by a worker in the MLMC paper's accounting (64 bits a number, indices free), mean over workers."""
        return sum(self.paper_up) / self.workers

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return {
            "workers": self.workers,
            "steps": self.steps,
            "skipped_steps": self.skipped_steps,
            "messages_up": self.messages_up,
            "bits_up_per_worker": self.bits_up_per_worker,
            "bits_down_per_worker": self.bits_down_per_worker,
            "paper_bits_up_per_worker": self.paper_bits_up_per_worker,
            "up": [dict(account) for account in self.up],
            "down": [dict(account) for account in self.down],
            "levels": {str(level): count for level, count in sorted(self.levels.items())},
        }
