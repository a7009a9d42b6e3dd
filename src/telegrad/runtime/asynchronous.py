"""The two ends of an asynchronous method, on a simulated clock or between processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

from torch import Tensor

from telegrad.errors import NonFiniteError, SpecError
from telegrad.methods.asynchronous_method import ArrivalStep, AsynchronousMethod
from telegrad.methods.base import Contents, require_finite_codes
from telegrad.methods.oracle_method import OracleStep, Upload
from telegrad.runtime.flat import OptimizerStep
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.oracle import TaskOracle
from telegrad.runtime.oracle_run import packed
from telegrad.wire.parcel import Parcel

__all__ = ["AsynchronousServer", "AsynchronousWorker", "Work"]


@dataclass(frozen=True)
class Work:
    """What a worker has done at the x that it got: what it sends, its loss, and how many gradients it computed; or a
    `failure`, what was not finite.
    """

    upload: Upload
    loss: float
    gradients: float
    failure: str = ""


class AsynchronousWorker:
    """Worker `oracle.rank`: its state, and how often it has begun anew."""

    def __init__(self, method: AsynchronousMethod, oracle: TaskOracle, first: OracleStep, x: Tensor) -> None:
        self.method, self.oracle, self.first = method, oracle, replace(first, rank=oracle.rank)
        self.state, self.jobs = method.worker_init(x), 0

    def work(self, x: Tensor, lr: float) -> Work:
        """Make a step at x. One that fails leaves no trace in the state. Raises `SpecError` where the method sends
        other than it says.
        """
        self.oracle.begin()
        step, upload, failure = replace(self.first, index=self.jobs, lr=lr), Upload(), ""
        try:
            upload, self.state = self.method.worker_step(self.oracle, x, self.state, step)
        except NonFiniteError as error:
            failure = str(error)
        found = Contents(len(upload.messages), len(upload.numbers))
        if not failure and found != self.method.upload:
            raise SpecError(f"{self.method} sends other than it says; let it say upload = {found}")
        self.jobs += 1
        return Work(upload, self.oracle.loss, self.oracle.gradients, failure)


class AsynchronousServer:
    """The server: x, its state, how often x has changed, and the account of all that comes and goes."""

    def __init__(
        self,
        method: AsynchronousMethod,
        first: OracleStep,
        x: Tensor,
        make_optimizer: Callable[[], OptimizerStep],
    ) -> None:
        self.method, self.first, self.x, self.state = method, first, x, method.server_init(x)
        self.ledger = Ledger(first.workers)
        self._changes, self._seen = 0, [0] * first.workers
        self._make = make_optimizer
        self._optimizer: OptimizerStep | None = None
        self._pieces = [piece.name for piece in first.pieces]

    def receive(self, sender: int, upload: Upload, parcel: Parcel, index: int, lr: float, seconds: float) -> None:
        """Act on the arrival number `index`. Raises `NonFiniteError`, before anything but the account changes, where
        the message or the next x holds NaN or infinity.
        """
        pieces: Sequence[str] = self._pieces * len(upload.messages)
        self.ledger.book(sender, {0: parcel}, {}, "up", pieces, lengths=False)
        require_finite_codes(parcel.codes)
        own = {one.name: getattr(self.first, one.name) for one in fields(self.first)}
        step = ArrivalStep(**own, sender=sender, delay=self._changes - self._seen[sender], seconds=seconds)
        step = replace(step, index=index, lr=lr)
        before = self.x
        self.x, self.state = self.method.server_step(upload, self.x, self.state, step, self._descend(lr))
        self._changes += self.x is not before

    def send(self, rank: int, index: int) -> Parcel:
        """What goes to a worker, which begins anew at the present x."""
        parcel = packed(replace(self.first, index=index).broadcast(self.x))
        self.ledger.book(rank, {}, {0: parcel}, "down", self._pieces, lengths=False)
        self._seen[rank] = self._changes
        return parcel

    def _descend(self, lr: float) -> OptimizerStep:
        if self._optimizer is None:
            self._optimizer = self._make()
        self._optimizer.lr = lr
        return self._optimizer
