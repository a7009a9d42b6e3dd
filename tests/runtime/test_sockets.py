"""Who is let in by the server of an asynchronous run: workers that know the key, each rank once."""

import socket
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client

import pytest

import telegrad as tg
from patience import PATIENCE
from telegrad.runtime import sockets


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")


class Waiting(threading.Thread):
    """Lets workers in; `failure`: what that raised."""

    def __init__(self, workers):
        super().__init__()
        self.reception, self.there, self.failure = sockets.Reception(workers, b"key"), {}, None

    def run(self):
        try:
            self.reception.everyone(self.there)
        except tg.TelegradError as error:
            self.failure = error


@pytest.fixture
def waiting():
    one = Waiting(2)
    one.start()
    yield one
    one.join(PATIENCE)
    one.reception.close()
    for connection in one.there.values():
        connection.close()


def joined(waiting, *ranks):
    for rank in ranks:
        with sockets.connected(waiting.reception.address, b"key", rank) as connection:
            connection.send_bytes(b"hello from %d" % rank)


def test_strangers_are_turned_away_and_the_workers_let_in(waiting):
    address = waiting.reception.address
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 12, b"\x7f\xff\xff\xff" + bytes(100)):
        with socket.create_connection(address) as stranger:
            stranger.sendall(said)
    with pytest.raises(AuthenticationError):
        Client(address, authkey=b"another key")
    joined(waiting, 1, 0)
    waiting.join(PATIENCE)
    assert waiting.failure is None
    assert {rank: waiting.there[rank].recv_bytes() for rank in (0, 1)} == {0: b"hello from 0", 1: b"hello from 1"}


@pytest.mark.parametrize(("ranks", "reason"), [((1, 1), "rank 1; still to come is one of \\[0\\]"), ((7,), "rank 7")])
def test_a_rank_that_is_none_or_comes_twice_is_an_error(waiting, ranks, reason):
    joined(waiting, *ranks)
    waiting.join(PATIENCE)
    assert isinstance(waiting.failure, tg.WireError)
    with pytest.raises(tg.WireError, match=reason):
        raise waiting.failure


def test_workers_that_do_not_come_are_named(monkeypatch):
    monkeypatch.setattr(sockets, "_SILENCE", 0)
    reception = sockets.Reception(3, b"key")
    with pytest.raises(tg.CommunicationError, match="workers \\[0, 2\\] have not come"):
        reception.everyone({1: None})
    reception.close()
