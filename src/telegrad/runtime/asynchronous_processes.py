"""A run of an asynchronous method with a process a worker: every worker has a socket to the server beside rank 0."""

from __future__ import annotations

import math
import secrets
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from threading import Thread

from torch import Tensor

from telegrad.errors import CommunicationError, DivergedError, NonFiniteError, TelegradError, WireError
from telegrad.methods.base import Contents
from telegrad.methods.oracle_method import OracleStep, Upload
from telegrad.runtime.asynchronous import AsynchronousServer, AsynchronousWorker, Work
from telegrad.runtime.expectations import Expected
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.oracle_run import packed, read_parcel, shapes_of
from telegrad.runtime.sockets import FRAME_NBYTES, Address, Peer, Reception, connected
from telegrad.runtime.transport import Transport
from telegrad.wire.parcel import Parcel

__all__ = ["Look", "run_processes"]

_UP, _DOWN = struct.Struct("<dd"), struct.Struct("<d")
"""Before a parcel stand a worker's loss and number of gradients, or the server's learning rate."""
_PATIENCE = 10


@dataclass(frozen=True)
class Look:
    """What there was after `step` arrivals: x, the account, the losses since the last look, and the seconds so far."""

    step: int
    x: Tensor
    ledger: Ledger
    losses: tuple[float, ...]
    seconds: float


def run_processes(
    transport: Transport,
    first: OracleStep,
    worker: AsynchronousWorker,
    make_server: Callable[[], AsynchronousServer],
    rates: Sequence[float],
    every: int,
) -> list[Look]:
    """Let `len(rates)` messages arrive and be acted on, in whatever order they come; every rank must call this.

    Returns, on rank 0, a look before the first arrival, after every `every` of them, and after the last; on other ranks
    nothing. Raises on all ranks `CommunicationError` where one is lost, `WireError` where one sent what does not fit,
    naming it and the reason, and `DivergedError` after ten messages in a row that hold no finite gradient.
    """
    (rank,) = transport.ranks
    serving = _Serving(transport.workers, make_server(), rates, every) if rank == 0 else None
    address, key = transport.objects(None if serving is None else (serving.reception.address, serving.key))[0]
    if serving is not None:
        serving.start()
    failures = [_work(rank, address, key, first, worker)]
    if serving is not None:
        serving.join()
        failures.insert(0, serving.failure)  # whose consequences are the others
    told = [failure for own in transport.objects(failures) for failure in own if failure is not None]
    # Where a rank leaves because of what it was sent, the server only sees that it has gone.
    for failure in sorted(told, key=lambda one: not isinstance(one, WireError)):
        raise failure
    return serving.looks if serving is not None else []


def _work(
    rank: int, address: Address, key: bytes, first: OracleStep, worker: AsynchronousWorker
) -> TelegradError | None:
    """A worker: send what comes of the x that has come, until nothing comes any more. Returns why it gave up."""
    try:
        with connected(address, key, rank) as connection:
            server = Peer(0, connection, _DOWN, Expected({0: shapes_of(Contents(1), first)}, first.dtype))
            while came := server.receive():
                (lr,), parcel = came
                work = worker.work(Upload(*read_parcel(parcel, first)).vector, lr)
                parcel = Parcel(failure=work.failure) if work.failure else packed(work.upload)
                server.send(_UP.pack(work.loss, work.gradients), parcel)
    except TelegradError as error:
        return error
    except (EOFError, OSError) as error:
        return CommunicationError(f"worker {rank} does not reach the server: {error!r}")
    return None


class _Serving(Thread):
    """The server, in a thread of rank 0's process. `failure`: why it gave up, if it did."""

    def __init__(self, workers: int, server: AsynchronousServer, rates: Sequence[float], every: int) -> None:
        super().__init__(daemon=True)
        self.server, self.rates, self.every = server, rates, every
        self.key = secrets.token_bytes(32)
        self.reception = Reception(workers, self.key)
        self.looks: list[Look] = []
        self.failure: TelegradError | None = None

    def run(self) -> None:
        connections: dict[int, Connection] = {}
        first = self.server.first
        shapes = shapes_of(self.server.method.upload, first)
        try:
            self.reception.everyone(connections)
            self._serve(
                [Peer(rank, one, _UP, Expected({rank: shapes}, first.dtype)) for rank, one in connections.items()]
            )
        except TelegradError as error:
            self.failure = error
        except Exception as error:  # else the workers would learn nothing but that the server is gone
            self.failure = CommunicationError(f"the server failed: {error!r}")
        finally:
            for connection in connections.values():
                connection.close()
            self.reception.close()

    def _serve(self, workers: list[Peer]) -> None:
        began, failed, index = time.perf_counter(), 0, 0
        losses: list[float] = []
        self._look(0, losses, 0.0)
        for worker in workers:
            self._send(worker, 0)
        while index < len(self.rates):
            # All that have come by now, in turn: none waits while another comes twice.
            for worker in _ready(workers):
                if index == len(self.rates):
                    break
                seconds = time.perf_counter() - began
                work, parcel = self._receive(worker)
                try:
                    if work.failure:
                        raise NonFiniteError(work.failure)
                    self.server.receive(worker.rank, work.upload, parcel, index, self.rates[index], seconds)
                except NonFiniteError:
                    self.server.ledger.skipped_steps += 1
                    failed += 1
                else:
                    losses.append(work.loss)
                    failed = 0
                index += 1
                self.server.ledger.steps = index
                if index % self.every == 0 or index == len(self.rates):
                    self._look(index, losses, time.perf_counter() - began)
                if failed == _PATIENCE:
                    raise DivergedError(f"{self.server.method}: no finite gradient in {_PATIENCE} messages in a row")
                if index < len(self.rates):
                    self._send(worker, index)
                else:
                    worker.end()
                    workers.remove(worker)
        # The others send what they are at, which is left out, and are told that it is over.
        while workers:
            for worker in _ready(workers):
                worker.take()
                worker.end()
                workers.remove(worker)

    def _receive(self, worker: Peer) -> tuple[Work, Parcel]:
        came = worker.receive()
        if came is None:
            raise worker.unfit("0 bytes where a parcel is expected")
        (loss, gradients), parcel = came
        if not 0 <= gradients < math.inf:
            raise worker.unfit(f"{gradients} gradients where a finite number from 0 is expected")
        upload = Upload(*read_parcel(parcel, self.server.first))
        self.server.ledger.gradients[worker.rank] += gradients
        self.server.ledger.sent[worker.rank] += 8 * (FRAME_NBYTES + _UP.size)
        return Work(upload, loss, gradients, parcel.failure), parcel

    def _send(self, worker: Peer, index: int) -> None:
        worker.send(_DOWN.pack(self.rates[index]), self.server.send(worker.rank, index))
        self.server.ledger.received[worker.rank] += 8 * (FRAME_NBYTES + _DOWN.size)

    def _look(self, step: int, losses: list[float], seconds: float) -> None:
        self.looks.append(Look(step, self.server.x, deepcopy(self.server.ledger), tuple(losses), seconds))
        losses.clear()


def _ready(workers: Iterable[Peer]) -> list[Peer]:
    """Those from whom something has come; waits until there is one."""
    by_connection = {worker.connection: worker for worker in workers}
    return [by_connection[one] for one in wait(list(by_connection)) if isinstance(one, Connection)]
