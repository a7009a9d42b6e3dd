"""What every topology promises: the same estimate on all ranks, bytes that are booked, failures that all ranks see."""

import pytest
import torch

import telegrad as tg
from cases import ours
from telegrad import Key, NonFiniteError, SpecError
from telegrad.context import LastEstimate
from telegrad.methods.base import Step
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.pieces import Part, Piece, joined_shards, shard_of, shards_of
from telegrad.runtime.transport import LENGTH_NBYTES, LocalTransport
from telegrad.spec import build
from telegrad.wire.parcel import Parcel, pack_parcel

TOPOLOGIES = [build(cls.example, "topology") for cls in ours("topology")]
PIECES = [Piece("a..b", (Part("a", 0, 5), Part("b", 0, 300))), Piece("c", (Part("c", 0, 1),))]
METHODS = ["sgd(mlmc(stopk(s=0.1)))", "ef14(topk(k=0.1))", "ef21_sgdm(topk(k=0.1))"]


class Wire(LocalTransport):
    """Packs every parcel that changes hands, reads it as one that was expected, and counts its bytes by sender and
    receiver.
    """

    def __init__(self, workers):
        super().__init__(workers)
        self.bits, self.phases = [[0] * workers for _ in range(workers)], 0

    def send(self, outgoing, expected):
        self.phases += 1
        travelled = []
        for sender, parcels in enumerate(outgoing):
            data = {receiver: pack_parcel(parcel) for receiver, parcel in parcels.items()}
            for receiver, one in data.items():
                self.bits[sender][receiver] += 8 * len(one)
            travelled.append({receiver: expected[receiver].read(sender, one) for receiver, one in data.items()})
        return super().send(travelled, expected)


def gradients(workers, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(p.numel, generator=generator).to(dtype) for p in PIECES] for _ in range(workers)]


def steps(topology, method, transport, count=3, downlink=None, dtype=torch.float32):
    exchange = exchange_of(method, topology, downlink, transport, Key(1))
    found = []
    for index in range(count):
        exchange.begin(index, 0.1)
        found.append(exchange.run(PIECES, gradients(transport.workers, index, dtype)))
        exchange.commit()
    return found, exchange


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("topology", TOPOLOGIES, ids=str)
def test_uncompressed_gradients_give_their_mean(topology, workers):
    found, _ = steps(topology, "sgd(identity)", LocalTransport(workers), dtype=torch.float64)
    for index, estimates in enumerate(found):
        own = gradients(workers, index, torch.float64)
        for number, estimate in enumerate(estimates):
            mean = torch.stack([g[number] for g in own]).mean(0)
            torch.testing.assert_close(estimate, mean, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_server_and_allgather_make_the_methods_own_steps(method):
    """Server states, worker states and keys are those of the contract driven by hand."""
    server, allgather = (steps(t, method, LocalTransport(3))[0] for t in ("server", "allgather"))
    chosen = tg.method(method)
    states = {p: [chosen.worker_init(p.numel, torch.float32) for _ in range(3)] for p in PIECES}
    servers = {p: chosen.server_init(p.numel, torch.float32) for p in PIECES}
    for index in range(3):
        own = gradients(3, index)
        for number, piece in enumerate(PIECES):
            step = Step(index, 0.1, Key(1).fold(step=index, piece=piece.name))
            pairs = [chosen.worker_step(own[r][number], states[piece][r], r, step) for r in range(3)]
            states[piece] = [state for _, state in pairs]
            estimate, servers[piece] = chosen.server_step([code for code, _ in pairs], servers[piece], step)
            assert torch.equal(server[index][number], estimate)
            assert torch.equal(allgather[index][number], estimate)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("topology", TOPOLOGIES, ids=str)
def test_packing_changes_nothing_and_every_byte_is_booked(topology, method):
    plain, exchange = steps(topology, method, LocalTransport(4))
    wire = Wire(4)
    packed, booked = steps(topology, method, wire)
    assert all(
        torch.equal(a, b) for one, other in zip(plain, packed, strict=True) for a, b in zip(one, other, strict=True)
    )
    ledger = booked.ledger
    assert ledger.to_dict() == exchange.ledger.to_dict()
    lengths = wire.phases * 3 * 8 * LENGTH_NBYTES
    for rank in range(4):
        away = sum(bits for receiver, bits in enumerate(wire.bits[rank]) if receiver != rank)
        assert ledger.sent[rank] + ledger.inside[rank] == away + lengths
    home = [sum(wire.bits[sender][rank] for sender in range(4) if sender != rank) for rank in range(4)]
    assert sum(ledger.received) + sum(ledger.inside) == sum(home) + 4 * lengths
    assert sum(a.total() for a in ledger.up) == sum(a.total() for a in ledger.by_piece.values())


def test_the_uplink_counts_each_message_once_and_the_downlink_what_is_decoded():
    _, exchange = steps("allgather", "sgd(randk(k=0.1))", LocalTransport(4))
    up = [account.total() for account in exchange.ledger.up]
    assert [account.total() for account in exchange.ledger.down] == [sum(up)] * 4
    _, exchange = steps("server", "sgd(randk(k=0.1))", LocalTransport(4))
    assert [account.total() for account in exchange.ledger.up] == up
    dense = Parcel(tuple(tg.compressor("identity").encode(torch.ones(p.numel)) for p in PIECES)).nbytes
    assert [account.total() for account in exchange.ledger.down] == [3 * 8 * dense] * 4


def test_two_phase_sends_the_same_number_of_bytes_from_any_number_of_workers():
    piece = Piece("model", (Part("a", 0, 60_000), Part("b", 0, 40_000)))
    sent = []
    for workers in (2, 4, 8, 16):
        exchange = exchange_of("sgd(importance(k=0.05))", "two_phase", None, LocalTransport(workers), Key(0))
        generator = torch.Generator().manual_seed(0)
        exchange.begin(0, 0.1)
        exchange.run([piece], [[torch.randn(piece.numel, generator=generator)] for _ in range(workers)])
        # What goes over the network is (M − 1) / M of two messages: the share that a worker keeps is no traffic.
        lengths = workers * (workers - 1) * 2 * 8 * LENGTH_NBYTES
        sent.append((sum(exchange.ledger.sent) - lengths) / (workers - 1))
    assert max(sent) < 1.1 * min(sent)


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=str)
@pytest.mark.parametrize("culprit", [0, 2])
def test_a_bad_gradient_is_told_to_all_ranks_and_leaves_no_state(topology, culprit):
    exchange = exchange_of("ef21_sgdm(topk(k=0.1))", topology, None, LocalTransport(4), Key(1))
    clean, _ = steps(topology, "ef21_sgdm(topk(k=0.1))", LocalTransport(4), count=1)
    bad = gradients(4)
    bad[culprit][1][0] = torch.nan
    told = []
    rounds = [exchange.topology.round(m, PIECES, own) for m, own in zip(exchange.members, bad, strict=True)]
    exchange.begin(0, 0.1)
    phases = [next(one) for one in rounds]
    for _ in range(3):
        inboxes = exchange.transport.send([phase.outgoing for phase in phases], [])()
        phases = []
        for one, inbox in zip(rounds, inboxes, strict=True):
            try:
                phases.append(one.send(inbox))
            except NonFiniteError as error:
                told.append(str(error))
        if told:
            break
    assert len(told) == 4, "all ranks learn of it in the same phase"
    assert len(set(told)) == 1
    assert f"worker {culprit}, c" in told[0]
    exchange.begin(0, 0.1)
    again = exchange.run(PIECES, gradients(4))
    assert all(torch.equal(a, b) for a, b in zip(again, clean[0], strict=True))


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=str)
def test_rounds_that_are_under_way_together_end_as_one_after_the_other(topology):
    found = []
    for together in (False, True):
        exchange = exchange_of("ef21_sgdm(topk(k=0.1))", topology, None, LocalTransport(4), Key(1))
        for index in range(3):
            exchange.begin(index, 0.1)
            each = [[[g] for g in numbered] for numbered in zip(*gradients(4, index), strict=True)]
            if together:
                running = [exchange.start([piece], own) for piece, own in zip(PIECES, each, strict=True)]
                estimates = [one.finish()[0] for one in running]
            else:
                estimates = [exchange.run([piece], own)[0] for piece, own in zip(PIECES, each, strict=True)]
            exchange.commit()
        found.append((estimates, exchange.ledger.to_dict()))
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    assert found[0][1] == found[1][1]


ORDERED = "mlmc(shared_order(s=0.25), workers=4)"
AFTER_LAST = [
    f"sgd({ORDERED})",
    f"ef21(scaled({ORDERED}))",
    "ef14(powersgd(rank=1, start=last))",
    "ef21_sgdm(powersgd(rank=1, start=last))",
]


@pytest.mark.parametrize("method", AFTER_LAST)
@pytest.mark.parametrize("topology", TOPOLOGIES, ids=str)
def test_what_wants_the_last_estimate_has_it_over_every_topology(topology, method):
    """The estimates of the second step differ where the first one is forgotten, in either piece that has an order."""
    plain, _ = steps(topology, method, LocalTransport(4))
    found, exchange = steps(topology, method, Wire(4))
    for a, b in zip(plain, found, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    exchange = exchange_of(method, topology, None, LocalTransport(4), Key(1))
    for index in range(2):
        exchange.begin(index, 0.1)
        last = exchange.run(PIECES, gradients(4, index))
        exchange.commit()
        for member in exchange.members:
            member.last_estimates.load({})
    assert not torch.equal(last[0], plain[1][0])
    assert torch.equal(last[1], plain[1][1])


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=str)
def test_the_order_of_the_last_estimate_costs_nothing(topology):
    """A worker's message of a quarter of d = 305 entries: seven bytes tell where they belong, not a hundred."""
    _, exchange = steps(topology, f"sgd({ORDERED})", Wire(4))
    messages = 4 if str(topology) == "two_phase" else 1
    assert 0 < exchange.ledger.up[0]["index"] <= 8 * 3 * len(PIECES) * 4 * messages


def test_a_method_that_wants_the_last_estimate_makes_the_steps_of_one_that_has_it():
    """The contract driven by hand, within contexts of the estimates of the step before."""
    for spec in AFTER_LAST:
        found, _ = steps("allgather", spec, LocalTransport(3))
        method, piece = tg.method(spec), PIECES[0]
        states = [method.worker_init(piece.numel, torch.float32) for _ in range(3)]
        server = method.server_init(piece.numel, torch.float32)
        last = LastEstimate(torch.zeros(piece.numel))
        for index in range(3):
            step = Step(index, 0.1, Key(1).fold(step=index, piece=piece.name))
            own = [g[0] for g in gradients(3, index)]
            bound = method.within(tg.Context(last=last))
            pairs = [bound.worker_step(own[r], states[r], r, step) for r in range(3)]
            states = [state for _, state in pairs]
            estimate, server = method.server_step([code for code, _ in pairs], server, step)
            assert torch.equal(found[index][0], estimate)
            last = LastEstimate(estimate)


def test_a_message_in_the_last_estimates_order_is_decoded_after_it():
    last = LastEstimate(gradients(4)[1][0])
    context = tg.Context(last=last)
    code = tg.compressor(ORDERED).encode(gradients(4, 1)[0][0], tg.Key(3), context)
    sent = tg.unpack(tg.pack(code))
    with pytest.raises(tg.WireError, match=r"decode code\.within\(context\)"):
        sent.decode()
    assert torch.equal(sent.within(context).decode(), code.decode())
    with pytest.raises(tg.WireError, match="an estimate of 4 entries"):
        sent.within(tg.Context(last=LastEstimate(last.vector[:4])))


def test_what_wants_the_last_estimate_cannot_send_it():
    with pytest.raises(SpecError, match="cannot send it"):
        exchange_of("sgd(identity)", "server", "mlmc(shared_order(s=2))", LocalTransport(4), Key(0))
    exchange = exchange_of(f"sgd({ORDERED})", "two_phase", None, LocalTransport(4), Key(0))
    assert str(exchange.downlink) == "identity"


def test_an_overflowing_estimate_is_a_bad_step():
    exchange = exchange_of("sgd(identity)", "allgather", None, LocalTransport(2), Key(0))
    exchange.begin(0, 0.1)
    huge = [[torch.full((p.numel,), 60000.0, dtype=torch.float16) for p in PIECES] for _ in range(2)]
    assert all(bool(e.isfinite().all()) for e in exchange.run(PIECES, huge))
    exchange = exchange_of("ef21(topk(k=1.0))", "allgather", None, LocalTransport(2), Key(0))
    for index, sign in enumerate((1, -1)):
        exchange.begin(index, 0.1)
        own = [[sign * g for g in gradient] for gradient in huge]
        if sign == 1:
            exchange.run(PIECES, own)
            exchange.commit()
        else:
            with pytest.raises(NonFiniteError):
                exchange.run(PIECES, own)


def test_shards_cover_a_piece_and_depend_on_the_parameter_alone():
    piece = PIECES[0]
    vector = torch.arange(float(piece.numel))
    shards = shards_of(piece, 4)
    assert torch.equal(joined_shards([shard_of(vector, piece, i, 4) for i in range(4)], piece, 4), vector)
    assert [len(shard_of(vector, piece, i, 4)) for i in range(4)] == [shard.numel for shard in shards]
    cut, room = [shard_of(vector, piece, i, 4) for i in range(4)], torch.empty(piece.numel)
    assert joined_shards(cut, piece, 4, room) is room
    assert torch.equal(room, vector)
    for wrong in (torch.empty(piece.numel - 1), torch.empty(piece.numel, dtype=torch.float64)):
        assert torch.equal(joined_shards(cut, piece, 4, wrong), vector)
    alone = shards_of(Piece("b", (Part("b", 0, 300),)), 4)
    assert [shard.parts[1] for shard in shards] == [shard.parts[0] for shard in alone]


@pytest.mark.parametrize("topology", ["allgather", "two_phase"])
def test_estimates_take_the_place_of_gradients_that_may_be_overwritten(topology):
    """New memory for a large vector costs more than all else of an exchange."""
    given = [[torch.randn(p.numel, generator=torch.Generator().manual_seed(r)) for p in PIECES] for r in range(2)]
    exchange = exchange_of("sgd(randk(k=0.5))", topology, None, LocalTransport(2), Key(0))
    exchange.begin(0, 0.1)
    expected = exchange.run(PIECES, [[g.clone() for g in own] for own in given])
    exchange.begin(0, 0.1)
    places = {g.data_ptr() for own in given for g in own}
    found = exchange.run(PIECES, given, overwrite=True)
    assert {estimate.data_ptr() for estimate in found} <= places
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(
    ("topology", "downlink", "culprit"),
    [
        ("server(rank=4)", None, "server\\(rank=4\\).*0 … 3"),
        ("server", "topk(k=0.1)", "downlink=topk.*biased"),
        ("two_phase", "topk(k=0.1)", "downlink=topk.*biased"),
        ("allgather", "randk(k=0.1)", "allgather sends no estimates"),
        ("hierarchical(node=0)", None, "node=0"),
        ("mesh", None, "mesh"),
    ],
)
def test_what_does_not_fit_is_refused_at_construction(topology, downlink, culprit):
    with pytest.raises(SpecError, match=culprit):
        exchange_of("sgd(identity)", topology, downlink, LocalTransport(4), Key(0))


def test_two_phase_compresses_its_estimates_as_the_method_does_where_that_is_unbiased():
    pairs = {"sgd(randk(k=0.1))": "randk(k=0.1)", "ef14(topk(k=0.1))": "identity"}
    for method, downlink in pairs.items():
        assert str(exchange_of(method, "two_phase", None, LocalTransport(2), Key(0)).downlink) == downlink
