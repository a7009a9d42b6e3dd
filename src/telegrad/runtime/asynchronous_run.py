"""A simulated run of an asynchronous method: a queue of arrivals on a clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from telegrad.errors import ConfigError, NonFiniteError
from telegrad.methods.asynchronous_method import AsynchronousMethod
from telegrad.methods.clock import Clock
from telegrad.methods.oracle_method import OracleStep
from telegrad.runtime.asynchronous import AsynchronousServer, AsynchronousWorker, Work
from telegrad.runtime.flat import FlatModel, OptimizerStep
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.oracle import TaskOracle
from telegrad.runtime.oracle_run import packed

__all__ = ["AsynchronousRun"]


@dataclass(order=True)
class _Arrival:
    """What arrives when, and from whom."""

    seconds: float
    rank: int
    work: Work = field(compare=False)


@dataclass
class _Now:
    """The simulated time."""

    seconds: float = 0.0


class AsynchronousRun:
    """The steps of an asynchronous method, one for each arrival, in the order of simulated time; ties by rank.

    `timeline.seconds`: the time of the last arrival.
    """

    def __init__(
        self,
        method: AsynchronousMethod,
        first: OracleStep,
        model: FlatModel,
        oracles: Mapping[int, TaskOracle],
        make_optimizer: Callable[[], OptimizerStep],
        clock: Clock | None,
    ) -> None:
        if clock is None:
            raise ConfigError(
                f"{method} runs by a simulated clock: write for example "
                "telegrad.simulate(…, clock=telegrad.methods.Clock(gradient=[1, 2], message=1))"
            )
        clock.check(first.workers)
        self.clock, self.model, self.encode_seconds, self.timeline = clock, model, 0.0, _Now()
        x = model.vector()
        self._workers = {rank: AsynchronousWorker(method, oracle, first, x) for rank, oracle in oracles.items()}
        self._server = AsynchronousServer(method, first, x, make_optimizer)
        self._queue: list[_Arrival] = []

    @property
    def ledger(self) -> Ledger:
        """The account."""
        return self._server.ledger

    def step(self, index: int, lr: float) -> float:
        """Let the next message arrive; returns its worker's loss. Raises `NonFiniteError` where there is none."""
        if not self._queue:
            for rank in self._workers:
                self._start(rank, lr, 0.0)
        arrival = heapq.heappop(self._queue)
        self.timeline.seconds, rank, work = arrival.seconds, arrival.rank, arrival.work
        try:
            if work.failure:
                raise NonFiniteError(work.failure)
            self._server.receive(rank, work.upload, packed(work.upload), index, lr, arrival.seconds)
        finally:
            bits = 8 * sum(self._server.send(rank, index).lengths)
            self._start(rank, lr, arrival.seconds + self.clock.down_seconds(rank, bits))
        return work.loss

    def show(self) -> None:
        """Set the model to x."""
        self.model.load(self._server.x)

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The workers' own buffers, stacked."""
        oracles = [worker.oracle for worker in self._workers.values()]
        return {name: torch.stack([oracle.buffers[name] for oracle in oracles]) for name in oracles[0].buffers}

    def _start(self, rank: int, lr: float, seconds: float) -> None:
        """Let a worker begin at the present x."""
        work = self._workers[rank].work(self._server.x, lr)
        self.ledger.gradients[rank] += work.gradients
        bits = 8 * sum(packed(work.upload).lengths)
        seconds += work.gradients * self.clock.gradient_seconds(rank) if work.gradients else 0.0
        seconds += self.clock.up_seconds(rank, len(work.upload.messages), bits)
        heapq.heappush(self._queue, _Arrival(seconds, rank, work))
