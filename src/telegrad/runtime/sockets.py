"""Sockets between a server and its workers: parcels over them are checked as they arrive."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge, wait

from telegrad.errors import CommunicationError, WireError
from telegrad.runtime.expectations import Expected, longest
from telegrad.wire.parcel import Parcel, pack_parcel

__all__ = ["FRAME_NBYTES", "Address", "Peer", "Reception", "connected"]

FRAME_NBYTES = 4
"""What the connection puts before a message: its length."""
_SILENCE = 600
"""Seconds after which one who breaks off in the middle of a message, takes none, or never comes counts as lost."""
_RANK = struct.Struct("<i")

Address = tuple[str, int]
"""Host and port."""


@dataclass(frozen=True, eq=False)
class Peer:
    """Rank `rank` at the other end. What comes from it: numbers as in `head`, and a parcel as `expected`."""

    rank: int
    connection: Connection
    head: struct.Struct
    expected: Expected

    def receive(self) -> tuple[Sequence[float], Parcel] | None:
        """The next numbers and parcel; None where the peer has ended. Raises, naming the rank, `WireError` for what is
        not expected, too long messages before room is made for them, and `CommunicationError` where the rank is lost.
        """
        data = self.take()
        if not data:
            return None
        try:
            if len(data) < self.head.size:
                raise WireError(f"{len(data)} bytes where {self.head.size} stand before a parcel")
            numbers: Sequence[float] = self.head.unpack_from(data)
            parcel = self.expected.read(self.rank, memoryview(data)[self.head.size :])
        except WireError as error:
            raise self.unfit(error) from error
        assert parcel is not None  # one is expected
        return numbers, parcel

    def take(self) -> bytes:
        """The next message, unread. Raises what `receive` raises for a length that is not allowed, or a lost rank."""
        most = self.head.size + longest(self.expected.shapes.get(self.rank))
        try:
            return self.connection.recv_bytes(most)
        except (EOFError, OSError) as error:
            if not (self.connection.closed or self.connection.readable):  # it is not after too long a message
                raise self.unfit(f"more bytes announced than the {most} that are allowed") from error
            raise self._lost(error) from error

    def send(self, head: bytes, parcel: Parcel) -> None:
        """Send a parcel and what stands before it. Raises `CommunicationError` where the rank is lost."""
        self._send(head + pack_parcel(parcel))

    def end(self) -> None:
        """Tell that nothing follows."""
        self._send(b"")

    def unfit(self, reason: object) -> WireError:
        """The error for something that this rank should not have sent."""
        return WireError(f"rank {self.rank} sent what does not fit: {reason}")

    def _send(self, data: bytes) -> None:
        try:
            self.connection.send_bytes(data)
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> CommunicationError:
        reason = f"it was silent for {_SILENCE} s" if isinstance(error, BlockingIOError) else repr(error)
        return CommunicationError(f"rank {self.rank} is lost: {reason}")


class Reception:
    """Where a server waits for its workers. `key`: what they must know to be let in."""

    def __init__(self, workers: int, key: bytes) -> None:
        name = os.environ.get("MASTER_ADDR") or socket.gethostname()  # by which the others know this machine
        self._socket = socket.create_server((socket.gethostbyname(name), 0), backlog=workers)
        self._workers, self._key = workers, key

    @property
    def address(self) -> Address:
        """For `connected`."""
        host, port = self._socket.getsockname()
        return host, port

    def everyone(self, into: dict[int, Connection]) -> None:
        """Let all workers in. Who does not know the key is turned away. Raises `WireError` for a rank that does not
        exist or has come before, and `CommunicationError` where one does not come.
        """
        until = time.monotonic() + _SILENCE
        while len(into) < self._workers:
            if not wait([self._socket], max(0.0, until - time.monotonic())):
                raise CommunicationError(f"workers {self._missing(into)} have not come within {_SILENCE} s")
            connection = _patient(Connection(self._socket.accept()[0].detach()))
            try:
                deliver_challenge(connection, self._key)
                answer_challenge(connection, self._key)
                said = connection.recv_bytes(_RANK.size)
            except (AuthenticationError, EOFError, OSError):
                connection.close()
                continue
            rank = _RANK.unpack(said)[0] if len(said) == _RANK.size else -1
            if not 0 <= rank < self._workers or rank in into:
                connection.close()
                raise WireError(f"a worker says that it is rank {rank}; still to come is one of {self._missing(into)}")
            into[rank] = connection

    def _missing(self, there: Mapping[int, object]) -> list[int]:
        return [rank for rank in range(self._workers) if rank not in there]

    def close(self) -> None:
        """Let nobody in any more."""
        self._socket.close()


def connected(address: Address, key: bytes, rank: int) -> Connection:
    """The connection of worker `rank` to a server's `Reception`."""
    connection = _patient(Client(address, authkey=key))
    connection.send_bytes(_RANK.pack(rank))
    return connection


def _patient(connection: Connection) -> Connection:
    """The connection, on which a read or write waits for `_SILENCE` at most."""
    if os.name == "posix":
        with socket.socket(fileno=os.dup(connection.fileno())) as same:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                same.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _SILENCE, 0))
    return connection
