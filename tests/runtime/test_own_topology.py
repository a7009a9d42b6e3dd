"""Topologies from outside telegrad: what a rank may not send, expect or return is named at once."""

import dataclasses
import re

import pytest

import telegrad as tg
from telegrad.runtime.expectations import shapes_of
from telegrad.runtime.topologies.base import Phase


def run(program):
    own = dataclasses.dataclass(frozen=True)(type("Own", (tg.Topology,), {"round": program, "has_downlink": False}))
    return tg.simulate("quadratic", "sgd(randk(k=4))", topology=own(), workers=3, steps=2, lr=0.01)


def to_all(member, pieces, gradients, account="both", listed=True):
    parcel, others = member.encode(pieces, gradients), {0, 1, 2} - {member.rank}
    expected = dict.fromkeys(others, shapes_of(pieces)) if listed else {}
    inbox = yield Phase(dict.fromkeys(others, parcel), account, expected)
    return member.serve_alike("own", pieces, {member.rank: parcel, **inbox}, gradients[0].dtype)


def ending_with(change):
    def program(self, member, pieces, gradients):
        return change((yield from to_all(member, pieces, gradients)))

    return program


def yielding(make):
    def program(self, member, pieces, gradients):
        yield make(member, pieces, gradients)
        return gradients

    return program


def uneven(self, member, pieces, gradients):
    estimates = yield from to_all(member, pieces, gradients)
    if not member.rank:
        yield Phase({}, "inside", {})
    return estimates


def test_a_right_one_gives_the_numbers_of_all_gather():
    wanted = tg.simulate("quadratic", "sgd(randk(k=4))", topology="allgather", workers=3, steps=2, lr=0.01)
    assert run(ending_with(lambda estimates: estimates)).parameters["x"].equal(wanted.parameters["x"])


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (lambda self, member, pieces, gradients: gradients, "returned a list at once; it is a generator"),
        (ending_with(lambda estimates: None), "returned None; a list of estimates of the shapes [(32,)]"),
        (ending_with(lambda estimates: [one[1:] for one in estimates]), "a list of estimates of the shapes [(32,)]"),
        (lambda self, *given: to_all(*given, account="upp"), "the account 'upp'; up, down, both, inside are allowed"),
        (lambda self, *given: to_all(*given, listed=False), "name in expected, by sender, shapes_of(pieces)"),
        (yielding(lambda member, pieces, gradients: gradients[0]), "yields a tensor of torch.float32"),
        (yielding(lambda member, pieces, gradients: Phase([], "up", {})), "is no mapping by rank; {} is none"),
        (
            yielding(lambda member, p, g: Phase({7: member.encode(p, g)}, "up", {})),
            "sends to rank 7; the others of 0 … 2",
        ),
        (
            yielding(lambda member, p, g: Phase({member.rank: member.encode(p, g)}, "up", {})),
            "of rank 0 sends to rank 0",
        ),
        (yielding(lambda member, p, g: Phase({(member.rank + 1) % 3: g[0]}, "up", {})), "a parcel is wanted, such as"),
        (uneven, "some ranks yield once more than others; all yield equally often"),
    ],
)
def test_what_a_rank_may_not_do_is_named(program, reason):
    with pytest.raises(tg.TelegradError, match=re.escape("Own") + ".*" + re.escape(reason)):
        run(program)
