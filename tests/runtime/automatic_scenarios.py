"""Run as 2 ranks: what `register(model, "auto")` does; prints one line of JSON a situation."""

import io
import logging
import math
import sys
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from ddp_scenarios import Net, assert_alike, loss_of, run_all, train, values, wrapped
from torch.nn.parallel import DistributedDataParallel

import telegrad as tg
from telegrad.runtime import automatic
from telegrad.runtime.bfloat16_average import average_in_bfloat16
from telegrad.runtime.choosing import HALF, PLAIN, Choice, Option
from telegrad.runtime.gradient_figures import noise_of
from telegrad.runtime.link import Link

SCENARIOS = {}
SLOW, FAST = Link(10.0, 1e-4), Link(1e15, 0.0)


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


@contextmanager
def over(link):
    """What is measured of the link is `link`; over the fast one, waits count for nothing: here they are the busy
    machine's.
    """
    share = 1.0 if link is FAST else 0.05
    with mock.patch.multiple(automatic, measured_link=lambda *_: link, _NOTHING_TO_GAIN=share, _LOOKS=math.inf):
        yield


def told(what):
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, what)
    return found


@scenario
def ranks_measure_agree_and_say_so_once():
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    log = logging.getLogger("telegrad.ddp")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    model, handle = wrapped("auto(every=6)", Net(width=256))
    assert handle.choice is None
    steps = 0
    while steps < 300 and not (
        handle.choice is not None and handle.choice.settled
    ):  # the trials take as long as they do
        train(model, 10, start=steps)
        steps += 10
    log.removeHandler(handler)
    assert_alike(model)
    assert handle.choice.settled
    assert len(set(told((str(handle.choice.way), handle.choice.settled, handle.choice.reason)))) == 1
    assert handle.ledger.steps == handle.steps == steps
    rank = dist.get_rank()
    assert handle.ledger.probes[rank] > 8 * (1 << 16)  # the smallest probe is 64 KiB
    assert handle.ledger.sent[rank] > handle.ledger.probes[rank]
    assert len({record.getMessage() for record in records}) == len(records)
    assert bool(records) == (rank == 0)
    handle.remove()
    assert not model._forward_pre_hooks
    train(model, 2, start=steps)
    assert_alike(model)


@scenario
def without_compression_it_is_ddp_bit_for_bit_and_booked():
    plain = DistributedDataParallel(Net())
    with over(FAST):
        model, handle = wrapped(tg.ddp.Automatic(every=7), check_every=3)
        train(model, 12)
    train(plain, 12)
    assert torch.equal(values(model), values(plain))
    assert handle.choice.way == PLAIN
    assert handle.choice.settled
    rank, bits = dist.get_rank(), 32 * sum(p.numel() for p in model.parameters())
    ledger = handle.ledger
    assert ledger.dense_steps == ledger.steps == 12
    assert ledger.up[rank].total() == 12 * bits
    assert ledger.sent[rank] - ledger.probes[rank] == 12 * bits  # a ring of two: 2 (M - 1)/M of the tensor
    assert handle.gathered_ledger().sent[1 - rank] == ledger.sent[rank]


@scenario
def the_average_in_bfloat16_is_unbiased_alike_on_all_ranks_and_hands_nan_on():
    """2,000 averages of 50 numbers: each one's mean is the exact average's within 5 standard errors."""
    rank, handle = dist.get_rank(), wrapped("auto", Net(width=8))[1]
    rows = torch.stack([tg.Key(one).normal(50).float() ** 3 for one in range(2)])
    sent = torch.empty(2000, 50)
    for seed in range(2000):
        sent[seed] = rows[rank]
        average_in_bfloat16(sent[seed], handle.exchange.transport, tg.Key(seed).fold(rank=rank))
    found = told(sent)
    assert torch.equal(found[0], found[1])
    assert torch.equal(sent.bfloat16().float(), sent)
    exact, error = rows.double().mean(0), sent.double().std(0) / 2000**0.5
    assert bool(((sent.double().mean(0) - exact).abs() <= 5 * error + 1e-12).all())
    # Each of the two roundings errs by less than 2^-7 of its number.
    assert bool(((sent - exact).abs() <= 2.0**-7 * (exact.abs() + rows.abs().sum(0) / 2)).all())
    for odd in (math.nan, math.inf):
        vector = torch.ones(3)
        vector[1] = odd if rank else 1.0
        average_in_bfloat16(vector, handle.exchange.transport, tg.Key(1).fold(rank=rank))
        assert vector.isfinite().tolist() == [True, False, True]


@scenario
def the_all_reduce_in_bfloat16_trains_and_is_booked():
    plain = DistributedDataParallel(Net())
    chosen = Choice(HALF, True, "told so", (Option(HALF, 1.0, 1.0, True),))
    lasting = mock.patch.object(automatic.AutomaticHandle, "_lasting", return_value=50)
    with over(SLOW), lasting, mock.patch.multiple(automatic, decide=lambda *_: chosen):
        model, handle = wrapped("auto", check_every=3)
        train(model, 6)
    train(plain, 6)
    assert handle.choice.way == HALF
    assert_alike(model)
    assert not torch.equal(values(model), values(plain))
    moved = (values(plain) - values(Net())).norm()
    assert float((values(model) - values(plain)).norm()) <= 2.0**-6 * float(moved)
    rank, ledger = dist.get_rank(), handle.ledger
    entries = sum(p.numel() for p in model.parameters())
    assert ledger.dense_steps == 0
    assert ledger.steps == 6
    assert ledger.up[rank].total() == 6 * 16 * entries
    assert ledger.sent[rank] - ledger.probes[rank] in (6 * 16 * entries, 6 * 16 * (entries + 1))


@scenario
def what_looks_cost_sets_how_often_they_come():
    with mock.patch.multiple(automatic, measured_link=lambda *_: FAST, _NOTHING_TO_GAIN=1.0):
        model, handle = wrapped("auto(every=6)")
        train(model, 7)
        assert handle.choice.settled
        waits = handle._next_look - 5
        assert waits >= 5  # a hundredth of the time: the first look alone took as long as many of these steps
        assert len(set(told(waits))) == 1


@scenario
def noise_is_that_of_the_ranks_gradients():
    """Rank r holds s + (-1)^r n: the mean is s, its variance ‖n‖²; so φ = ‖n‖² / (‖s‖² − ‖n‖²) by the estimator."""
    handle = wrapped("auto", Net(width=8))[1]
    sign = (-1.0) ** dist.get_rank()
    for signal, noise, expected in ((1.0, 0.0, 0.0), (1.0, 0.5, 0.25 / 0.75), (0.5, 1.0, math.inf), (0.0, 0.0, 0.0)):
        sample = torch.full((20_000,), signal + sign * noise)
        assert noise_of(sample, handle.exchange.transport, handle.ledger) == pytest.approx(expected)


@scenario
def a_slow_link_is_compressed_for_and_a_fast_one_switches_back():
    with over(SLOW):
        model, handle = wrapped("auto(every=6)", Net(width=64), {"bucket_cap_mb": 512 / 2**20})
        optimizer, steps = train(model, 1), 1
        while not handle.choice.settled and steps < 40:
            train(model, 1, start=steps, optimizer=optimizer)
            steps += 1
        first = handle.choice
        assert first.way != PLAIN
        assert first.settled
        assert handle.ledger.dense_steps == 0
        assert_alike(model)
    with over(FAST):
        train(model, 30, start=steps, optimizer=optimizer)
    assert handle.choice.way == PLAIN
    dense = handle.ledger.dense_steps
    assert 0 < dense < steps + 30
    assert handle.ledger.steps == handle.steps == steps + 30
    assert_alike(model)
    with over(SLOW):
        train(model, 12, start=steps + 30, optimizer=optimizer)
    assert_alike(model)
    assert len(set(told(str(handle.choice.way)))) == 1


@scenario
def what_noise_costs_is_seen_with_sgd_and_not_with_adam():
    for kind, told_of in ((torch.optim.SGD, True), (torch.optim.Adam, False)):
        with over(SLOW):
            model, handle = wrapped("auto", Net(width=64))
            optimizer = kind(model.parameters(), lr=1e-4)
            train(model, 7, optimizer=optimizer)
        assert math.isfinite(handle._noise.harm) == told_of
        assert len(set(told(repr(handle._noise.harm)))) == 1
        bounds = [option.factor for option in handle.choice.options]
        assert max(bounds) < 2 if told_of else max(bounds) > 2
        handle.remove()


@scenario
def a_checkpoint_goes_on_with_the_choice():
    with over(SLOW):
        whole, handle = wrapped("auto", Net(width=64))
        optimizer = train(whole, 1)
        while not handle.choice.settled:
            train(whole, 1, start=handle.steps, optimizer=optimizer)
        start = handle.steps
        file = io.BytesIO()
        torch.save([whole.state_dict(), optimizer.state_dict(), handle.gathered_state_dict()], file)
        train(whole, 4, start=start, optimizer=optimizer)
    saved = told(file.getvalue())[0]
    parameters, momentum, state = torch.load(io.BytesIO(saved), weights_only=True)
    with mock.patch.object(automatic, "measured_link", side_effect=AssertionError("measured again")):
        model, again = wrapped("auto", Net(width=64))
        model.load_state_dict(parameters)
        again.load_state_dict(state)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
        optimizer.load_state_dict(momentum)
        assert again.choice.way == handle.choice.way != PLAIN
        assert again.choice.settled
        train(model, 4, start=start, optimizer=optimizer)
    assert torch.equal(values(model), values(whole))
    _, fixed = wrapped("auto(bits=1)")
    with pytest.raises(tg.ConfigError, match="method="):
        fixed.load_state_dict(state)


@scenario
def a_gradient_that_cannot_be_measured_leaves_things_as_they_are():
    for factor in (0.0, float("nan")):
        with over(SLOW):
            model, handle = wrapped("auto", Net(width=64))
            one = loss_of(model, dist.get_rank(), 0)
            (one * factor if dist.get_rank() == 1 else one).backward()
            assert handle.choice.way == PLAIN
            assert not handle.choice.settled
            model.zero_grad()
            train(model, 2)
            assert handle.choice.way != PLAIN
            assert handle.ledger.dense_steps == 1
            assert_alike(model)


@scenario
def passes_left_out_and_accumulation():
    with over(SLOW):
        model, handle = wrapped("auto", Net(width=64))
        with handle.left_out():
            loss_of(model, dist.get_rank(), 0).backward()
        assert handle.steps == 0
        model.zero_grad()
        with model.no_sync():
            loss_of(model, dist.get_rank(), 0).backward()
        loss_of(model, dist.get_rank(), 1).backward()
        assert handle.steps == 1
        torch.optim.SGD(model.parameters(), lr=0.05).step()
        assert_alike(model)


@scenario
def what_does_not_fit_the_rule_is_refused():
    for options in ({"topology": "two_phase"}, {"downlink": "identity"}):
        with pytest.raises(tg.ConfigError, match="leave out topology and downlink"):
            wrapped("auto", **options)
    with pytest.raises(tg.SpecError, match="patience"):
        wrapped("auto(patience=0)")
    with pytest.raises(tg.ConfigError, match="ranks do not agree on method"):
        wrapped(f"auto(patience={2 + dist.get_rank()})")


if __name__ == "__main__":
    run_all(SCENARIOS, sys.argv[1:])
