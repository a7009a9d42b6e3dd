"""A run of an asynchronous method with a process a worker: every worker has a socket to the server beside rank 0."""

from __future__ import annotations

import os
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener, wait
from threading import Thread

from torch import Tensor

from telegrad.errors import CommunicationError, DivergedError, NonFiniteError, TelegradError, WireError
from telegrad.methods.oracle_method import OracleStep, Upload
from telegrad.runtime.asynchronous import AsynchronousServer, AsynchronousWorker, Work
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.oracle_run import packed, read_parcel
from telegrad.runtime.transport import Transport
from telegrad.wire.parcel import Parcel, pack_parcel, unpack_parcel

__all__ = ["FRAME_NBYTES", "Look", "run_processes"]

_UP, _DOWN, _RANK = struct.Struct("<dd"), struct.Struct("<d"), struct.Struct("<i")
FRAME_NBYTES = 4
"""What the connection puts before a message: its length. Before the parcel stand a worker's loss and number of
gradients (16 bytes), or the server's learning rate (8 bytes).
"""
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
    nothing. Raises `CommunicationError` on all ranks where one is lost, `DivergedError` after ten messages in a row
    that hold no gradient.
    """
    (rank,) = transport.ranks
    serving = _Serving(transport.workers, make_server(), rates, every) if rank == 0 else None
    address, key = transport.objects(None if serving is None else (serving.listener.address, serving.key))[0]
    if serving is not None:
        serving.start()
    lost: Exception | None = None
    try:
        with Client(address, authkey=key) as connection:
            _work(rank, connection, first, worker)
    except (EOFError, OSError) as error:
        lost = error
    if serving is not None:
        serving.join()
    failure = transport.objects(None if serving is None else serving.failure)[0]
    if failure is not None:
        raise failure
    if lost is not None:
        raise CommunicationError(f"worker {rank} has lost the server: {lost!r}")
    return serving.looks if serving is not None else []


def _work(rank: int, connection: Connection, first: OracleStep, worker: AsynchronousWorker) -> None:
    """A worker: send what comes of the x that has come, until nothing comes any more."""
    connection.send_bytes(_RANK.pack(rank))
    while data := connection.recv_bytes():
        (lr,) = _DOWN.unpack_from(data)
        x = Upload(*read_parcel(unpack_parcel(memoryview(data)[_DOWN.size :]), first)).vector
        work = worker.work(x, lr)
        parcel = Parcel(failure=work.failure) if work.failure else packed(work.upload)
        connection.send_bytes(_UP.pack(work.loss, work.gradients) + pack_parcel(parcel))


class _Serving(Thread):
    """The server, in a thread of rank 0's process. `failure`: why it gave up, if it did."""

    def __init__(self, workers: int, server: AsynchronousServer, rates: Sequence[float], every: int) -> None:
        super().__init__(daemon=True)
        self.workers, self.server, self.rates, self.every = workers, server, rates, every
        self.key = secrets.token_bytes(32)
        self.listener = Listener((_host(), 0), backlog=workers, authkey=self.key)
        self.looks: list[Look] = []
        self.failure: TelegradError | None = None

    def run(self) -> None:
        connections: dict[Connection, int] = {}
        try:
            while len(connections) < self.workers:
                connection = self.listener.accept()
                (connections[connection],) = _RANK.unpack(connection.recv_bytes())
            self._serve(connections)
        except TelegradError as error:
            self.failure = error
        except (EOFError, OSError) as error:
            self.failure = CommunicationError(f"a worker is lost: {error!r}")
        finally:
            for connection in connections:
                connection.close()
            self.listener.close()

    def _serve(self, connections: dict[Connection, int]) -> None:
        began, failed, index = time.perf_counter(), 0, 0
        losses: list[float] = []
        self._look(0, losses, 0.0)
        for connection in connections:
            self._send(connection, connections[connection], 0)
        while index < len(self.rates):
            # All that have come by now, in turn: none waits while another comes twice.
            for connection in _ready(connections):
                if index == len(self.rates):
                    break
                rank, seconds = connections[connection], time.perf_counter() - began
                work, parcel = self._receive(connection, rank)
                try:
                    if work.failure:
                        raise NonFiniteError(work.failure)
                    self.server.receive(rank, work.upload, parcel, index, self.rates[index], seconds)
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
                    self._send(connection, rank, index)
                else:
                    connection.send_bytes(b"")
                    del connections[connection]
        self._end(connections)

    def _end(self, connections: dict[Connection, int]) -> None:
        """Let the others send what they are at, which is left out, and tell them that it is over."""
        while connections:
            for connection in _ready(connections):
                connection.recv_bytes()
                connection.send_bytes(b"")
                del connections[connection]

    def _receive(self, connection: Connection, rank: int) -> tuple[Work, Parcel]:
        data = connection.recv_bytes()
        try:
            loss, gradients = _UP.unpack_from(data)
            parcel = unpack_parcel(memoryview(data)[_UP.size :])
            upload = Upload(*read_parcel(parcel, self.server.first))
        except (struct.error, WireError) as error:
            raise WireError(f"rank {rank} sent what does not fit: {error}") from error
        self.server.ledger.gradients[rank] += gradients
        self.server.ledger.sent[rank] += 8 * (FRAME_NBYTES + _UP.size)
        return Work(upload, loss, gradients, parcel.failure), parcel

    def _send(self, connection: Connection, rank: int, index: int) -> None:
        parcel = self.server.send(rank, index)
        connection.send_bytes(_DOWN.pack(self.rates[index]) + pack_parcel(parcel))
        self.server.ledger.received[rank] += 8 * (FRAME_NBYTES + _DOWN.size)

    def _look(self, step: int, losses: list[float], seconds: float) -> None:
        self.looks.append(Look(step, self.server.x, deepcopy(self.server.ledger), tuple(losses), seconds))
        losses.clear()


def _ready(connections: Iterable[Connection]) -> list[Connection]:
    """Those on which something has come; waits until there is one."""
    return [one for one in wait(list(connections)) if isinstance(one, Connection)]


def _host() -> str:
    """The address of this machine by which the others know it."""
    name = os.environ.get("MASTER_ADDR") or socket.gethostname()
    return socket.gethostbyname(name)
