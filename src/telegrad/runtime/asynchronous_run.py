"""A run of an asynchronous method: a queue of arrivals on a simulated clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, NonFiniteError, SpecError
from telegrad.methods.asynchronous_method import ArrivalStep, AsynchronousMethod
from telegrad.methods.base import State
from telegrad.methods.clock import Clock
from telegrad.methods.oracle_method import OracleStep, Upload
from telegrad.random import Key
from telegrad.runtime.flat import FlatModel, OptimizerStep
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.oracle import TaskOracle
from telegrad.runtime.oracle_run import packed
from telegrad.runtime.topologies import Topology
from telegrad.runtime.topologies.server import Server
from telegrad.runtime.transport import LocalTransport, Transport

__all__ = ["AsynchronousRun"]


@dataclass(order=True)
class _Arrival:
    """What arrives when from whom; `version`: how often x had changed when its worker got it."""

    seconds: float
    rank: int
    version: int = field(compare=False)
    upload: Upload = field(compare=False)
    state: State = field(compare=False)
    loss: float = field(compare=False)
    failure: str = field(compare=False)


@dataclass
class _Now:
    """The simulated time."""

    seconds: float = 0.0


class AsynchronousRun:
    """The steps of an asynchronous method, one for each arrival, in the order of simulated time; ties by rank.

    x comes down to a worker through the run's `downlink`. `timeline.seconds`: the time of the last arrival.
    """

    def __init__(
        self,
        method: AsynchronousMethod,
        topology: Topology,
        downlink: str | Compressor | None,
        transport: Transport,
        key: Key,
        model: FlatModel,
        oracles: Mapping[int, TaskOracle],
        make_optimizer: Callable[[], OptimizerStep],
        clock: Clock | None,
    ) -> None:
        if clock is None or not isinstance(transport, LocalTransport):
            raise ConfigError(
                f"{method} runs by a simulated clock: write for example "
                "telegrad.simulate(…, clock=telegrad.methods.Clock(gradient=[1, 2], message=1))"
            )
        if not isinstance(topology, Server):
            raise SpecError(f"{method} runs over topology=server, not over {topology}")
        if downlink is not None:
            raise SpecError(f"{method} sends its iterates down as they are, so leave out downlink={downlink}")
        clock.check(transport.workers)
        self.method, self.clock, self.model, self.oracles = method, clock, model, oracles
        self.ledger, self.encode_seconds, self.timeline = Ledger(transport.workers), 0.0, _Now()
        self.x = model.vector()
        self._first = OracleStep(
            *(0, 0.0, key), workers=transport.workers, pieces=model.pieces, clock=clock, dtype=self.x.dtype
        )
        self.server, self._version = method.server_init(self.x), 0
        self._states = {rank: method.worker_init(self.x) for rank in transport.ranks}
        self._jobs = dict.fromkeys(transport.ranks, 0)
        self._make = make_optimizer
        self._optimizer: OptimizerStep | None = None
        self._queue: list[_Arrival] = []

    def step(self, index: int, lr: float) -> float:
        """Let the next message arrive; returns its worker's loss. Raises `NonFiniteError` where there is none."""
        if not self._queue:
            for rank in self._jobs:
                self._start(rank, lr, 0.0)
        arrival = heapq.heappop(self._queue)
        self.timeline.seconds, rank = arrival.seconds, arrival.rank
        try:
            if arrival.failure:
                raise NonFiniteError(arrival.failure)
            self._book(rank, arrival.upload, up=True)
            self._states[rank] = arrival.state
            own = {one.name: getattr(self._first, one.name) for one in fields(self._first)}
            step = ArrivalStep(**own, sender=rank, delay=self._version - arrival.version, seconds=arrival.seconds)
            step = replace(step, index=index, lr=lr, common=step.key.fold(step=index, role="common"))
            before = self.x
            self.x, self.server = self.method.server_step(arrival.upload, self.x, self.server, step, self._descend(lr))
            self._version += self.x is not before
        finally:
            came = replace(self._first, index=index).broadcast(self.x)
            bits = self._book(rank, came, up=False)
            self._start(rank, lr, arrival.seconds + self.clock.down_seconds(rank, bits))
        return arrival.loss

    def show(self) -> None:
        """Set the model to x."""
        self.model.load(self.x)

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The workers' own buffers, stacked."""
        oracles = list(self.oracles.values())
        return {name: torch.stack([oracle.buffers[name] for oracle in oracles]) for name in oracles[0].buffers}

    def _start(self, rank: int, lr: float, seconds: float) -> None:
        """Let a worker begin at the present x."""
        oracle, state, failure, upload = self.oracles[rank], self._states[rank], "", Upload()
        oracle.begin()
        step = replace(self._first, index=self._jobs[rank], lr=lr, rank=rank)
        try:
            upload, state = self.method.worker_step(oracle, self.x, state, step)
        except NonFiniteError as error:
            failure = str(error)
        self._jobs[rank] += 1
        self.ledger.gradients[rank] += oracle.gradients
        bits = 8 * sum(packed(upload).lengths)
        seconds += oracle.gradients * self.clock.gradient_seconds(rank) if oracle.gradients else 0.0
        seconds += self.clock.up_seconds(rank, len(upload.messages), bits)
        heapq.heappush(self._queue, _Arrival(seconds, rank, self._version, upload, state, oracle.loss, failure))

    def _descend(self, lr: float) -> OptimizerStep:
        if self._optimizer is None:
            self._optimizer = self._make()
        self._optimizer.lr = lr
        return self._optimizer

    def _book(self, rank: int, message: Upload, up: bool) -> int:
        """Book what goes up or down; returns its bits."""
        parcel, names = packed(message), [piece.name for piece in self.model.pieces]
        if up:
            self.ledger.book(rank, {0: parcel}, {}, "up", names * len(message.messages), lengths=False)
        else:
            self.ledger.book(rank, {}, {0: parcel}, "down", names, lengths=False)
        return 8 * sum(parcel.lengths)
