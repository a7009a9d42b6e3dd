"""The contract of an asynchronous method: workers that wait for nobody, on a simulated clock or as processes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from telegrad.methods.base import Contents, Method, State
from telegrad.methods.oracle_method import Descent, Oracle, OracleStep, Upload

__all__ = ["ArrivalStep", "AsynchronousMethod"]


@dataclass(frozen=True)
class ArrivalStep(OracleStep):
    """What the server knows of an arrival: whose it is, `sender`; how many arrivals before it have changed x since that
    worker got its own, `delay`; and the time of the run, `seconds`, simulated or real.
    """

    sender: int = 0
    delay: int = 0
    seconds: float = 0.0


class AsynchronousMethod(Method):
    """A method whose server acts on every message as it arrives. A step of the run is one arrival.

    A worker asks its oracle for gradients at the x that it got last, and sends; when that has arrived, the server makes
    its step and sends x to this worker, which goes on at once. All are pure functions: states are values. In the
    simulator the run's `clock` says how long each takes; with processes (`train_distributed`) every worker has a socket
    to the server, which is a thread of rank 0's process, and takes as long as it takes.

    `upload`: what a worker sends each time; other messages are refused as they arrive.
    """

    upload: ClassVar[Contents] = Contents(1)

    needs = "has workers that wait for nobody"
    instead = "sgd(randk(k=0.1))"

    def worker_init(self, x: Tensor) -> State:
        """A worker's state at the first parameters x."""
        return {}

    def server_init(self, x: Tensor) -> State:
        """The server's state at the first parameters x."""
        return {}

    @abstractmethod
    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload, State]:
        """What worker `step.rank`, at the x that it got, sends, and its next state. `step.index` counts its own."""

    @abstractmethod
    def server_step(
        self, upload: Upload, x: Tensor, state: State, step: ArrivalStep, optimizer: Descent
    ) -> tuple[Tensor, State]:
        """The next x and the server's next state for what has arrived from `step.sender`. `optimizer(x, g)` makes a
        step of the run's torch optimizer.
        """
