"""The simulated time of a run whose workers wait for each other where they exchange something."""

from __future__ import annotations

from collections.abc import Mapping

from telegrad.methods.clock import Clock
from telegrad.runtime.ledger import Ledger

__all__ = ["Timeline"]


class Timeline:
    """When each worker is through with what it did so far, in simulated seconds.

    A worker computes for itself; in an exchange, the server waits for all who send, and those who receive go on when
    the server's message has come down. Bits are those of the account: every message once, whoever receives it.
    """

    def __init__(self, clock: Clock, workers: int) -> None:
        clock.check(workers)
        self.clock, self.times = clock, [0.0] * workers
        self._up, self._down = [0] * workers, [0] * workers

    @property
    def seconds(self) -> float:
        """When the last worker was through."""
        return max(self.times)

    def compute(self, rank: int, gradients: float) -> None:
        """Worker `rank` computes so many gradients of one batch."""
        if gradients:
            self.times[rank] += gradients * self.clock.gradient_seconds(rank)

    def exchange(self, ledger: Ledger, messages: Mapping[int, int]) -> None:
        """An exchange after which the ledger is this; `messages`: how many each sender sent."""
        up, down = ([account.total() for account in rows] for rows in (ledger.up, ledger.down))
        sent = [now - before for now, before in zip(up, self._up, strict=True)]
        came = [now - before for now, before in zip(down, self._down, strict=True)]
        self._up, self._down = up, down
        arrivals = (self.times[i] + self.clock.up_seconds(i, count, sent[i]) for i, count in messages.items())
        served = max(arrivals, default=0.0)
        for rank, bits in enumerate(came):
            if bits:
                self.times[rank] = max(self.times[rank], served + self.clock.down_seconds(rank, bits))
