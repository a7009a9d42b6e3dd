"""Gradients on a GPU, with a stand-in for one: they are encoded where they lie, and only messages cross over."""

import pytest
import torch
from stand_in import Device, gpu, plain, there  # noqa: F401
from test_topologies import Wire

from telegrad.random import Key
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.pieces import Part, Piece

D = 20_000
PIECES = [Piece("a", (Part("a", 0, D),))]
SPECS = ["topk(k=0.01)", "mlmc(stopk(s=0.01))", "mlmc(stopk(s=0.01, values=sign))", "importance(k=0.01)"]


def vectors(workers):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(D, generator=generator) for _ in range(workers)]


def estimates(spec, topology, gradients):
    exchange = exchange_of(spec, topology, None, Wire(len(gradients)), Key(1))
    found = []
    for step in range(2):
        exchange.begin(step, 0.1)
        placed = [[exchange.placed(g.clone())] for g in gradients]
        found += exchange.run(PIECES, placed, overwrite=topology == "allgather")
        exchange.commit()
    return found


@pytest.mark.parametrize("topology", ["allgather", "server", "two_phase"])
@pytest.mark.parametrize("spec", SPECS)
def test_gradients_are_encoded_and_estimates_added_up_where_they_lie(spec, topology, gpu):  # noqa: F811
    own = vectors(2)
    expected = estimates(spec, topology, own)
    with gpu() as stand_in:
        found = estimates(spec, topology, [there(g) for g in own])
    assert all(isinstance(one, Device) for one in found)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(plain(one), other, rtol=1e-6, atol=1e-7)
    if topology == "allgather":  # a server's estimate is a dense message here; a histogram has 2^13 bins, and sums
        assert max(stand_in.down) <= 2 * 2**13 < D
        assert max(stand_in.up) <= D // 50


def test_without_a_form_or_with_a_memory_a_gradient_comes_to_the_cpu_first(gpu):  # noqa: F811
    own = vectors(2)
    for spec in ("eden(bits=2)", "ef21(topk(k=0.01))"):
        expected = estimates(spec, "allgather", own)
        with gpu() as stand_in:
            found = estimates(spec, "allgather", [there(g) for g in own])
        assert stand_in.down.count(D) >= 4
        for one, other in zip(found, expected, strict=True):
            assert not isinstance(one, Device)
            assert torch.equal(one, other)
