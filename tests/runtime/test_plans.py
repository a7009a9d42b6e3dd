"""What the exchange makes of a method's plan, and of a downlink that both ends remember."""

import dataclasses

import pytest
import torch

import telegrad as tg
from telegrad import Key, SpecError
from telegrad.compressors.base import Compressor
from telegrad.methods import SGD
from telegrad.methods.base import Round
from telegrad.methods.downlink import Downlink
from telegrad.runtime.exchange import Exchange, exchange_of
from telegrad.runtime.pieces import Part, Piece
from telegrad.runtime.transport import LocalTransport
from telegrad.spec import build

PIECES = [Piece("a", (Part("a", 0, 40),)), Piece("b", (Part("b", 0, 9),))]
TOPOLOGIES = ["server", "allgather", "two_phase", "hierarchical(node=2)"]


@dataclasses.dataclass(frozen=True)
class Drawn(SGD):
    """SGD by two of the workers."""

    def plan(self, step):
        return Round(cohort=step.drawn_cohort(2))


@dataclasses.dataclass(frozen=True)
class Remembering(SGD):
    """SGD with a downlink of its own."""

    down: Compressor = dataclasses.field(default_factory=lambda: tg.compressor("topk(k=0.2)"))

    def downlink(self):
        return Downlink(self.down, memory=True)


def gradients(workers, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(piece.numel, generator=generator) for piece in PIECES] for _ in range(workers)]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_all_pieces_see_one_cohort_and_the_others_send_nothing(topology):
    exchange = Exchange(
        Drawn(tg.compressor("identity")),
        build(topology, "topology"),
        tg.compressor("identity"),
        LocalTransport(8),
        Key(3),
    )
    cohorts = set()
    for index in range(6):
        before = [account.total() for account in exchange.ledger.up]
        exchange.begin(index, 0.1)
        found = exchange.run(PIECES, gradients(8, index))
        exchange.commit()
        cohort = exchange.members[0].round.cohort
        cohorts.add(cohort)
        # A node is one worker of the method, with the sum of its two ranks.
        ranks = [r for r in range(8) if (r // 2 if "hierarchical" in topology else r) in cohort]
        for number in range(len(PIECES)):
            mean = torch.stack([gradients(8, index)[rank][number] for rank in ranks]).mean(0)
            torch.testing.assert_close(found[number], mean, rtol=1e-5, atol=1e-6)
        sent = [a.total() > b for a, b in zip(exchange.ledger.up, before, strict=True)]
        assert [rank for rank in range(8) if sent[rank]] == [r for r in ranks if "hier" not in topology or r % 2 == 0]
    assert len(cohorts) > 1


@pytest.mark.parametrize("topology", ["server", "two_phase"])
def test_a_downlink_with_memory_sends_differences_that_all_ends_add_up(topology):
    method = Remembering(tg.compressor("identity"))
    exchange = exchange_of(method, topology, None, LocalTransport(3), Key(0))
    own = gradients(3)
    mean = [torch.stack([one[number] for one in own]).mean(0) for number in range(len(PIECES))]
    errors = []
    for index in range(30):
        exchange.begin(index, 0.1)
        found = exchange.run(PIECES, own)
        exchange.commit()
        errors.append(max(float((a - b).abs().max()) for a, b in zip(found, mean, strict=True)))
    assert errors[0] > 0.1, "the first message is compressed"
    assert errors[-1] < 1e-6, "of gradients that stay, in the end everything has come down"
    saved = exchange.members[1].save()
    assert saved["down"]
    again = exchange_of(method, topology, None, LocalTransport(3), Key(0))
    for member, other in zip(again.members, exchange.members, strict=True):
        member.load(other.save())
    again.begin(30, 0.1)
    exchange.begin(30, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(again.run(PIECES, own), exchange.run(PIECES, own), strict=True))


def test_a_downlink_of_the_methods_own_is_not_given_twice_and_needs_a_server():
    method = Remembering(tg.compressor("identity"))
    with pytest.raises(SpecError, match=r"leave out downlink=randk"):
        exchange_of(method, "server", "randk(k=0.1)", LocalTransport(2), Key(0))
    with pytest.raises(SpecError, match="topology=server or two_phase"):
        exchange_of(method, "allgather", None, LocalTransport(2), Key(0))
