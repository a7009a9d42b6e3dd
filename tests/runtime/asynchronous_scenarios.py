"""Run as 3 ranks: asynchronous methods whose workers are processes. No rank sleeps: the slow one waits for an event."""

import os
import struct
import sys
import threading
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from ddp_scenarios import run_all

import telegrad as tg
from telegrad.methods import Clock
from telegrad.methods.async_sgd import AsyncSGD
from telegrad.methods.rennala import Rennala
from telegrad.runtime import sockets
from telegrad.runtime.distributed import train_distributed
from telegrad.runtime.oracle_run import packed
from telegrad.spec import build
from telegrad.wire.code import Code, Term
from telegrad.wire.parcel import Parcel, pack_parcel
from telegrad.wire.positions import All, Ranked
from telegrad.wire.values import Floats
from telegrad.workloads.digits import DigitsTask

SCENARIOS = {}
PATIENCE = timedelta(minutes=20)
SETTING = {"batch_size": 4, "lr": 0.05}


def scenario(function):
    def patched():
        with pytest.MonkeyPatch.context() as monkeypatch:
            function(monkeypatch)

    SCENARIOS[function.__name__] = patched
    return function


def digits():
    return build("digits", "workload").load(None, tg.Key())


class Paced(DigitsTask):
    """Digits; before its gradient number n (from 0), `pace(n)` is called."""

    def __new__(cls, pace):
        return object.__new__(cls)

    def __init__(self, pace):
        for name, value in vars(digits()).items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "pace", pace)
        object.__setattr__(self, "count", [0])

    def loss(self, model, inputs, targets):
        if model.training:
            self.pace(self.count[0])
            self.count[0] += 1
        return super().loss(model, inputs, targets)


class Events:
    """Events by name that the server tells, and workers wait for, over the store of the process group. Each has a
    connection of its own: one that waits lets no other thread have it.
    """

    def __init__(self):
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._waits, self._tells = (dist.TCPStore(*address, is_master=False) for _ in range(2))

    def tell(self, name):
        self._tells.set(name, "")

    def paced(self, waits):
        """Digits whose rank r waits before its gradient number n for the event waits[r, n], if there is one."""
        mine = {number: name for (rank, number), name in waits.items() if rank == dist.get_rank()}

        def pace(number):
            if number in mine:
                self._waits.wait([mine[number]], PATIENCE)

        return Paced(pace)


def gathered(mine):
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return found


class Watched:
    """Notes of what the server of this rank sees, and of the parcels that the worker of this rank packs."""

    def __init__(self, monkeypatch, cls, told=None):
        self.arrivals, self.parcels = [], []
        plain, pack = cls.server_step, sockets.pack_parcel

        def server_step(method, upload, x, state, step, optimizer):
            self.arrivals.append((step.sender, step.delay))
            if told is not None:
                told(self.arrivals)
            return plain(method, upload, x, state, step, optimizer)

        def packing(parcel):
            data = pack(parcel)
            if threading.current_thread() is threading.main_thread():  # the server's thread packs iterates
                self.parcels.append(data)
            return data

        monkeypatch.setattr(cls, "server_step", server_step)
        monkeypatch.setattr(sockets, "pack_parcel", packing)


@scenario
def a_slow_worker_is_not_waited_for_and_its_old_message_counts(monkeypatch):
    """Worker 2's first gradient waits until six messages of the others have arrived; then the others wait for it."""
    events, slow = Events(), "the slow one has come"

    def told(arrivals):
        if len(arrivals) == 6:
            events.tell("six have come")
        if arrivals[-1][0] == 2:
            events.tell(slow)

    seen, task = (
        Watched(monkeypatch, AsyncSGD, told),
        events.paced({(2, 0): "six have come", (0, 4): slow, (1, 4): slow}),
    )
    result = train_distributed(task, "async_sgd(randk(k=0.1))", steps=16, evaluate_every=8, **SETTING)
    arrivals = gathered(seen.arrivals)[0]
    assert len(arrivals) == 16
    first = next(place for place, (sender, _) in enumerate(arrivals) if sender == 2)
    assert first >= 6
    assert arrivals[first][1] == first, "all arrivals before it have changed x"
    # The account is what was sent: every rank's parcels, but for the last one, which came too late.
    counts = [sum(sender == one for sender, _ in arrivals) for one in range(3)]
    lengths = [[len(data) for data in parcels] for parcels in gathered(seen.parcels)]
    assert all(len(own) >= count for own, count in zip(lengths, counts, strict=True))
    frames = sockets.FRAME_NBYTES + 16
    sent = [8 * (sum(own[:count]) + frames * count) for own, count in zip(lengths, counts, strict=True)]
    assert result.ledger.sent[1:] == sent[1:]
    assert [record["step"] for record in result.records] == [0, 8, 16]
    assert result.ledger.steps == 16


@scenario
def a_workers_first_message_is_that_of_the_simulator(monkeypatch):
    seen = Watched(monkeypatch, AsyncSGD)
    train_distributed("digits", "async_sgd(mlmc(stopk(s=0.1)))", steps=6, **SETTING)
    first, uploads, plain = [own[0] for own in gathered(seen.parcels)], {}, AsyncSGD.server_step

    def server_step(method, upload, x, state, step, optimizer):
        uploads.setdefault(step.sender, upload)
        return plain(method, upload, x, state, step, optimizer)

    monkeypatch.setattr(AsyncSGD, "server_step", server_step)
    tg.simulate("digits", "async_sgd(mlmc(stopk(s=0.1)))", workers=3, steps=3, clock=Clock(gradient=1), **SETTING)
    assert first == [pack_parcel(packed(uploads[rank])) for rank in range(3)]


@scenario
def all_ranks_end_with_the_same_result_which_has_learnt(monkeypatch):
    for method, steps in (("async_sgd(mlmc(stopk(s=0.1)))", 300), ("rennala(randk(k=0.2), batch=3)", 600)):
        # Without momentum, which on a busy machine carries on with gradients of long ago.
        result = train_distributed("digits", method, steps=steps, lr=0.1, batch_size=16)
        everywhere = gathered([value.tolist() for value in result.parameters.values()])
        assert everywhere[0] == everywhere[1] == everywhere[2]
        assert result.records[-1]["validation"] > 0.5, method  # a guess is right once in ten
        assert len(result.records) == 21


@scenario
def a_batch_of_rennala_is_filled_by_those_who_are_fast(monkeypatch):
    """Worker 2 is at its first gradient until twelve messages have come: four batches of three without it."""
    events = Events()

    def told(arrivals):
        if len(arrivals) == 12:
            events.tell("twelve have come")

    seen, task = Watched(monkeypatch, Rennala, told), events.paced({(2, 0): "twelve have come"})
    train_distributed(task, "rennala(randk(k=0.1), batch=3)", steps=15, **SETTING)
    arrivals = gathered(seen.arrivals)[0]
    assert {sender for sender, _ in arrivals[:12]} <= {0, 1}
    assert sum(delay == 0 for _, delay in arrivals) >= 6


@scenario
def shadowheart_plans_by_its_clock_and_ends_as_simulated(monkeypatch):
    """Worker 2 is too slow to take part: it computes nothing, here as in the simulator."""
    clock = Clock(gradient=(1, 2, 500), message=(1, 1, 500))
    setting = {"steps": 12, "evaluate_every": 6, "clock": clock, **SETTING}
    wire = train_distributed("digits", "shadowheart(randk(k=0.1))", **setting)
    simulated = tg.simulate("digits", "shadowheart(randk(k=0.1))", workers=3, gradients="loop", **setting)
    assert wire.ledger.to_dict() == simulated.ledger.to_dict()
    assert wire.ledger.gradients[0] > wire.ledger.gradients[1] > wire.ledger.gradients[2] == 0
    for name, value in simulated.parameters.items():
        assert torch.equal(value, wire.parameters[name])
    assert "simulated_seconds" not in wire.records[-1]


@scenario
def messages_without_a_gradient_are_counted_and_ten_in_a_row_end_the_run(monkeypatch):
    with pytest.raises(tg.DivergedError, match="10 messages in a row"):
        train_distributed("digits", "async_sgd(identity)", steps=60, batch_size=4, lr=1e30)


@scenario
def what_does_not_go_with_it_is_refused(monkeypatch):
    for wrong, error in (
        ({"clock": Clock(gradient=1)}, "their own time"),
        ({"downlink": "randk(k=0.1)"}, "leave out downlink"),
        ({"topology": "allgather"}, "topology=server"),
    ):
        with pytest.raises(tg.TelegradError, match=error):
            train_distributed("digits", "async_sgd(identity)", steps=1, **{**SETTING, **wrong})


METHODS = {AsyncSGD: "async_sgd(identity)", Rennala: "rennala(identity, batch=2)"}


def refused(monkeypatch, lie, number=3, cls=AsyncSGD, liar=2):
    """What a run raises on this rank in which `liar` calls `lie(connection, head, parcel)` in place of sending its
    message `number`; and on how many messages of rank 2 the server has acted.
    """
    seen, honest, count = Watched(monkeypatch, cls), sockets.Peer.send, [0]

    def send(peer, head, parcel):
        mine = threading.current_thread() is threading.main_thread()  # the server is another thread of rank 0
        if dist.get_rank() == liar and mine == (liar != 0):
            count[0] += 1
            if count[0] == number:
                lie(peer.connection, head, parcel)
                return
        honest(peer, head, parcel)

    monkeypatch.setattr(sockets.Peer, "send", send)
    with pytest.raises(tg.TelegradError) as raised:
        train_distributed("digits", METHODS[cls], steps=100_000, **SETTING)
    monkeypatch.undo()
    return f"{raised.type.__name__}: {raised.value}", sum(sender == 2 for sender, _ in seen.arrivals)


def parcel(*codes):
    return lambda connection, head, _: connection.send_bytes(head + pack_parcel(Parcel(codes)))


def announced(nbytes):
    """Only the length of a message, as the connection writes it."""
    return lambda connection, head, _: connection._send(struct.pack("!iQ", -1, nbytes))


def numbers(*values):
    return lambda connection, _, honest: connection.send_bytes(struct.pack("<dd", *values) + pack_parcel(honest))


D = sum(p.numel() for p in digits().model(tg.Key()).parameters())
DENSE = tg.compressor("identity")
UNFIT = {
    f"the message is for 7 entries, where {D} are expected": parcel(DENSE.encode(torch.ones(7))),
    f"the message is for {2**36} entries, where {D} are expected": parcel(Code((2**36,), torch.float32)),
    f"a message for a tensor of shape (1, {D}), where ({D},) is expected": parcel(DENSE.encode(torch.ones(1, D))),
    "a message for torch.float64 where torch.float32 is expected": parcel(DENSE.encode(torch.ones(D).double())),
    "a message counts on the last estimate's order": parcel(
        Code((D,), torch.float32, (Term(Ranked(D, 0, 2, shared=True), Floats(torch.ones(2))),))
    ),
    "a parcel holds 0 messages where 1 are expected": parcel(),
    "a parcel holds 2 messages where 1 are expected": parcel(*2 * [DENSE.encode(torch.ones(D))]),
    "not a parcel: it starts with 7": lambda connection, head, _: connection.send_bytes(head + b"\7 what is this"),
    "0 bytes where a parcel is expected": lambda connection, head, _: connection.send_bytes(head),
    "3 bytes where 16 stand before a parcel": lambda connection, head, _: connection.send_bytes(head[:3]),
    "more bytes announced than the": announced(2**40),
    "more bytes announced than the ": announced(2**62),
    "-1.0 gradients": numbers(0.5, -1.0),
    "nan gradients": numbers(0.5, float("nan")),
}


def everywhere_the_same(mine):
    found = gathered(mine)
    assert len(set(found)) == 1, found
    return found[0]


@scenario
def what_does_not_fit_is_one_error_on_all_ranks_before_the_server_acts_on_it(monkeypatch):
    for place, (reason, lie) in enumerate(UNFIT.items()):
        text, acted = refused(monkeypatch, lie, number=3, cls=(AsyncSGD, Rennala)[place % 2])
        assert everywhere_the_same(text).startswith(f"WireError: rank 2 sent what does not fit: {reason}"), text
        assert gathered(acted)[0] == 2


@scenario
def a_server_that_sends_what_does_not_fit_is_named_by_all(monkeypatch):
    for reason, lie in {
        "the message is for 7 entries": parcel(DENSE.encode(torch.ones(7))),
        "more bytes announced than the": announced(2**62),
        "3 bytes where 8 stand before a parcel": lambda connection, head, _: connection.send_bytes(head[:3]),
    }.items():
        text, _ = refused(monkeypatch, lie, number=5, liar=0)
        assert everywhere_the_same(text).startswith(f"WireError: rank 0 sent what does not fit: {reason}"), text


@scenario
def one_who_leaves_or_breaks_off_is_named_by_all(monkeypatch):
    text, _ = refused(monkeypatch, lambda connection, head, _: connection.close())
    assert everywhere_the_same(text).startswith("CommunicationError: rank 2 is lost: EOFError"), text
    # The lie sleeps no time: the worker goes on to wait for an answer that does not come.
    monkeypatch.setattr(sockets, "_SILENCE", 5)
    text, _ = refused(monkeypatch, lambda connection, head, _: connection._send(struct.pack("!i", 1000) + head))
    # The worker, too, waits 5 s for the server, and leaves then: which of the two ends first is open.
    lost = "CommunicationError: rank 2 is lost: "
    ends = ("it was silent for 5 s", "OSError('got end of file during message')")
    assert everywhere_the_same(text) in [lost + end for end in ends], text


@scenario
def a_message_that_is_not_finite_changes_nothing_and_the_run_goes_on(monkeypatch):
    """Every message of worker 2 holds NaN: without it the batches of Rennala are those of the other two."""
    honest, states = sockets.Peer.send, []
    plain = Rennala.server_step

    def send(peer, head, own):
        if dist.get_rank() == 2:
            own = Parcel((Code((D,), torch.float32, (Term(All(D), Floats(torch.full((D,), torch.nan))),)),))
        honest(peer, head, own)

    def server_step(method, upload, x, state, step, optimizer):
        found, state = plain(method, upload, x, state, step, optimizer)
        states.append((step.sender, bool(found.isfinite().all() and state["sum"].isfinite().all())))
        return found, state

    monkeypatch.setattr(sockets.Peer, "send", send)
    monkeypatch.setattr(Rennala, "server_step", server_step)
    result = train_distributed("digits", "rennala(identity, batch=3)", steps=40, **SETTING)
    seen = gathered(states)[0]
    assert {sender for sender, _ in seen} == {0, 1}
    assert all(finite for _, finite in seen)
    assert result.ledger.skipped_steps == 40 - len(seen) > 0


def lose():
    """Rank 1 is gone at its third gradient."""

    def pace(number):
        if dist.get_rank() == 1 and number == 2:
            os._exit(3)

    try:
        train_distributed(Paced(pace), "async_sgd(identity)", steps=10_000, **SETTING)
    except tg.CommunicationError as error:
        print(error, flush=True)
        os._exit(7)
    sys.exit("no error")


def main():
    if sys.argv[1:] == ["lose"]:
        torch.set_num_threads(1)
        dist.init_process_group("gloo")
        lose()
    run_all(SCENARIOS, sys.argv[1:])


if __name__ == "__main__":
    main()
