"""What a handle tells a logger: differences of readings, and the error of this rank's own messages."""

import pytest
import torch

import telegrad as tg
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.meter import Meter, Reading, reading
from telegrad.runtime.pieces import Part, Piece
from telegrad.runtime.rate_advice import RateAdvice
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


def test_steps_of_a_state_that_was_loaded_do_not_count():
    meter = Meter(3200)
    meter.go_on_from(Reading(40))
    assert meter.since_asked() == {}
    meter.end_step(Reading(41, 100))
    meter.end_step(Reading(42, 200))
    assert meter.since_asked()["comm/bits_up"] == 100


@pytest.mark.parametrize("topology", ["allgather", "server", "two_phase"])
def test_the_error_is_that_of_the_first_workers_messages(topology):
    gradients = [torch.randn(2, 50, generator=torch.Generator().manual_seed(seed)).unbind() for seed in range(2)]
    pieces = [Piece(name, (Part(name, 0, 50),)) for name in "ab"]
    exchange = exchange_of("sgd(topk(k=5))", topology, None, LocalTransport(2), tg.Key(0))
    exchange.begin(0, 1.0)
    exchange.measures = True
    exchange.run(pieces, gradients)
    exchange.commit()
    whole = torch.stack(gradients[0]).double()
    parts = whole.view(2, 2, 25) if topology == "two_phase" else whole  # Top-k of each of two shards
    left = parts.abs().sort(dim=-1).values[..., :-5]
    now = reading([exchange], 1, 0)
    assert now.error == pytest.approx(float(left.square().sum() / whole.square().sum()))
    assert now.up == exchange.ledger.up[0].total() > 0
    assert now.encode_seconds > 0


@pytest.mark.parametrize(
    ("omega", "workers", "twice", "level", "words"),
    [
        (0.5, 4, False, "INFO", "ω = 0.5 on these gradients, ω/M = 0.125; the learning rate of training without"),
        (60.0, 4, False, "WARNING", "ω/M = 15; the learning rate of training without compression may be 16 times too"),
        (3.0, 4, True, "WARNING", "may be 7 times too high"),  # (1 + 3/4)(1 + 3)
    ],
)
def test_the_first_error_says_once_which_learning_rate_fits(omega, workers, twice, level, words, caplog):
    advice = RateAdvice("mlmc(stopk(s=0.01))", workers, twice)
    meter = Meter(3200, advice)
    with caplog.at_level("INFO", "telegrad.ddp"):
        meter.end_step(Reading(1, 100, 100))
        meter.end_step(Reading(2, 200, 200, error=0.0))
        assert not caplog.records, "nothing is known yet, or nothing is lost"
        meter.end_step(Reading(3, 300, 300, error=omega))
        meter.end_step(Reading(4, 400, 400, error=omega))
    (record,) = caplog.records
    assert record.levelname == level
    assert words in record.getMessage()


def test_the_advice_knows_the_exchange():
    def said(spec, topology):
        transport = LocalTransport(4)
        transport.ranks = [0]  # as in a process of its own
        return vars(RateAdvice.of(exchange_of(spec, topology, None, transport, tg.Key(0))))

    assert said("sgd(randk(k=0.1))", "allgather") == {
        "_spec": "sgd(randk(k=0.1))", "_workers": 4, "_twice": False, "_told": False
    }  # fmt: skip
    assert said("sgd(randk(k=0.1))", "two_phase")["_twice"]
    assert not said("sgd(topk(k=0.1))", "two_phase")["_twice"], "a biased compressor is not used again"
    assert said("sgd(randk(k=0.1))", "hierarchical(node=2)")["_workers"] == 2
