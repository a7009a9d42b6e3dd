"""What a handle tells a logger: differences of readings, and the error of this rank's own messages."""

import pytest
import torch

import telegrad as tg
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.meter import Meter, Reading, reading
from telegrad.runtime.pieces import Part, Piece
from telegrad.runtime.transport import LocalTransport


def test_figures_are_means_of_the_steps_since_the_last_call():
    meter = Meter(3200)
    assert meter.since_asked() == meter.last_step() == {}
    meter.end_step(Reading(1, 100, 200, 0.5, 0.25, 0, 0.5))
    assert meter.since_asked() == {
        "comm/bits_up": 100, "comm/bits_down": 200, "comm/ratio": 32, "comm/encode_ms": 500, "comm/wait_ms": 250,
        "comm/skipped": 0, "comm/omega": 0.5,
    }  # fmt: skip
    meter.end_step(Reading(2, 200, 400, 1.0, 0.5, 0, 0.5))
    meter.end_step(Reading(3, 600, 800, 1.0, 0.5, 1, 0.75))
    assert meter.last_step()["comm/bits_up"] == 400
    mean = meter.since_asked()
    assert [mean["comm/bits_up"], mean["comm/bits_down"], mean["comm/skipped"]] == [250, 300, 1]
    assert meter.since_asked() == meter.last_step(), "nothing new: the last step again"
    meter.end_step(Reading(3, 600, 800, 1.0, 0.5, 2, 0.75))  # the same step, read once more
    assert meter.last_step()["comm/bits_up"] == 400


@pytest.mark.parametrize("topology", ["allgather", "server"])
def test_the_error_is_that_of_the_first_workers_messages(topology):
    gradients = [torch.randn(2, 50, generator=torch.Generator().manual_seed(seed)).unbind() for seed in range(2)]
    pieces = [Piece(name, (Part(name, 0, 50),)) for name in "ab"]
    exchange = exchange_of("sgd(topk(k=5))", topology, None, LocalTransport(2), tg.Key(0))
    exchange.begin(0, 1.0)
    exchange.measures = True
    exchange.run(pieces, gradients)
    exchange.commit()
    whole = torch.stack(gradients[0]).double()
    left = whole.abs().sort(dim=1).values[:, :-5]
    now = reading([exchange], 1, 0)
    assert now.error == pytest.approx(float(left.square().sum() / whole.square().sum()))
    assert now.up == exchange.ledger.up[0].total() > 0
    assert now.encode_seconds > 0
