"""Run as 2 ranks: every situation of a script with an outer loop, each a function; see ddp_scenarios.py."""

import copy
import io
import sys
import warnings

import pytest
import torch
import torch.distributed as dist
from ddp_scenarios import Net, assert_alike, expect, loss_of, run_all, values
from torch import nn

import telegrad as tg
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.outer_loop import OuterLoop
from telegrad.runtime.transport import LocalTransport

SCENARIOS = {}
FIRST, REST = ("first.weight", "first.bias"), ("second.weight", "second.bias", "extra.weight", "extra.bias")
COMPLEX, META = nn.Linear(2, 2, dtype=torch.complex64), nn.Linear(2, 2, device="meta")
STREAMING = "every=6, fragments=2, delay=2, alpha=0.5"


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def adamw(net):
    return torch.optim.AdamW(net.parameters(), lr=0.01)


def inner_step(net, optimizer, rank, step):
    optimizer.zero_grad()
    loss_of(net, rank, step, next(net.parameters()).dtype).backward()
    optimizer.step()


def registered(spec, net=None, make=adamw, **options):
    net = Net() if net is None else net
    optimizer = make(net)
    return net, optimizer, tg.outer.register(net, optimizer, spec, **options)


def train(net, optimizer, steps, start=0):
    for step in range(start, start + steps):
        inner_step(net, optimizer, dist.get_rank(), step)


def by_hand(steps, every, fragments, make_outer, delay=0, alpha=0.0):
    """Both ranks' training in this process, written out: the ranks' models, and the global parameters by name."""
    nets = [Net(), Net()]
    optimizers = [adamw(net) for net in nets]
    own = [dict(net.named_parameters()) for net in nets]
    theta = {name: p.detach().clone() for name, p in own[0].items()}
    outer = make_outer(theta.values())
    sent = {}
    for step in range(1, steps + 1):
        for rank in range(2):
            inner_step(nets[rank], optimizers[rank], rank, step - 1)
        with torch.no_grad():
            for number, names in enumerate(fragments, 1):
                if step % every == number * every // len(fragments) % every:
                    sent[step + delay] = {n: [theta[n] - own[rank][n] for rank in range(2)] for n in names}
            for name, (one, other) in sent.pop(step, {}).items():
                theta[name].grad = (one + other) / 2
            if any(p.grad is not None for p in theta.values()):
                outer.step()
            for name, p in theta.items():
                if p.grad is not None:
                    p.grad = None
                    for rank in range(2):
                        own[rank][name].copy_(torch.lerp(p, own[rank][name], alpha) if alpha else p)
    return nets, theta


def nesterov(lr, momentum):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=momentum, nesterov=True)


def same_global(handle, theta):
    return all(torch.equal(handle.global_parameters[name], value) for name, value in theta.items())


@scenario
def a_round_after_every_plain_step_is_data_parallel_sgd():
    net, _, handle = registered(
        "outer(identity, optimizer=sgd(lr=1))", make=lambda n: torch.optim.SGD(n.parameters(), lr=0.05), every=1
    )
    train(net, handle._inner[0], 4)
    plain = Net()
    sgd = torch.optim.SGD(plain.parameters(), lr=0.05)
    for step in range(4):
        sgd.zero_grad()
        ((loss_of(plain, 0, step) + loss_of(plain, 1, step)) / 2).backward()
        sgd.step()
    torch.testing.assert_close(values(net), values(plain), rtol=1e-5, atol=1e-6)
    assert handle.steps == handle.ledger.steps == 4
    assert handle.ledger.silent_steps == 0
    assert_alike(net)


@scenario
def diloco_is_the_loop_written_out():
    net, optimizer, handle = registered("diloco", every=3)
    train(net, optimizer, 7)
    nets, theta = by_hand(7, 3, [FIRST + REST], nesterov(0.7, 0.9))
    assert same_global(handle, theta)
    assert torch.equal(values(net), values(nets[dist.get_rank()]))
    assert (handle.ledger.steps, handle.ledger.silent_steps) == (7, 5)
    dense = sum(p.numel() for p in net.parameters()) * 32
    up = handle.ledger.up[dist.get_rank()].total()
    assert 2 * dense < up < 2 * dense * 1.1
    figures = handle.metrics()
    assert figures["comm/bits_up"] == up / 7
    assert 7 / 2 / 1.1 < figures["comm/ratio"] < 7 / 2, "against an exchange after every step"
    assert handle.last_step["comm/bits_up"] == 0, "the seventh step is the first of a round"
    handle.synchronise()
    assert handle.last_step["comm/bits_up"] == handle.ledger.up[dist.get_rank()].total() - up > dense


@scenario
def streaming_fragments_with_delay_and_mixing_are_the_loop_written_out():
    net, optimizer, handle = registered(f"muloco({STREAMING})")
    train(net, optimizer, 15)
    nets, theta = by_hand(15, 6, [FIRST, REST], nesterov(0.9, 0.8), delay=2, alpha=0.5)
    assert same_global(handle, theta)
    assert torch.equal(values(net), values(nets[dist.get_rank()]))
    assert [[part.name for piece in f for part in piece.parts] for f in handle._loop.fragments] == [[*FIRST], [*REST]]


@scenario
def every_compressor_and_topology_equals_the_loop_without_a_wire():
    for spec in (f"outer(mlmc(stopk(s=0.1)), {STREAMING})", "outer(topk(k=0.1), feedback=ef(decay=0.9), every=3)"):
        for topology in ("allgather", "two_phase", "server", "hierarchical(node=2)"):
            for granularity in ("tensor", "model"):
                net, optimizer, handle = registered(spec, topology=topology, granularity=granularity)
                train(net, optimizer, 9)
                nets = [Net(), Net()]
                exchange = exchange_of(handle.method.exchanged, topology, None, LocalTransport(2), tg.Key(0))
                loop = OuterLoop(handle.method, exchange, [dict(n.named_parameters()) for n in nets], granularity)
                optimizers = [adamw(one) for one in nets]
                for step in range(9):
                    for rank in range(2):
                        inner_step(nets[rank], optimizers[rank], rank, step)
                    loop.after_step()
                assert torch.equal(values(net), values(nets[dist.get_rank()])), (spec, topology, granularity)
                assert same_global(handle, loop.parameters)
                handle.synchronise()
                loop.synchronise()
                assert same_global(handle, loop.parameters)
                account = handle.gathered_ledger()
                assert account.up == exchange.ledger.up
                assert account.sent == exchange.ledger.sent
                assert account.silent_steps == exchange.ledger.silent_steps
                handle.remove()


@scenario
def a_resumed_run_goes_on_bit_for_bit():
    for spec, at in (
        (f"outer(topk(k=0.1), feedback=ef(decay=0.9), {STREAMING})", 7),  # a fragment travels then
        ("outer(mlmc(stopk(s=0.1)))", 5),
    ):
        every = 6 if STREAMING in spec else 4
        net, optimizer, handle = registered(spec, every=every)
        train(net, optimizer, at)
        buffer = io.BytesIO()
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "handle": handle.state_dict()}
        torch.save(state, buffer)
        train(net, optimizer, 9, start=at)
        other, other_optimizer, other_handle = registered(spec, every=every)
        buffer.seek(0)
        kept = torch.load(buffer, weights_only=True)
        other.load_state_dict(kept["net"])
        other_optimizer.load_state_dict(kept["optimizer"])
        other_handle.load_state_dict(kept["handle"])
        train(other, other_optimizer, 9, start=at)
        assert torch.equal(values(other), values(net))
        assert same_global(other_handle, handle.global_parameters)
        assert other_handle.steps == handle.steps == at + 9
        if STREAMING not in spec:
            assert other_handle.metrics()["comm/bits_up"] == other_handle.ledger.up[dist.get_rank()].total() / 9


@scenario
def who_joins_late_begins_at_the_global_parameters():
    spec = "outer(topk(k=0.2), feedback=ef)"
    net, optimizer, handle = registered(spec, every=2)
    train(net, optimizer, 5)
    state, model = [handle.state_dict()], [net.state_dict()]
    dist.broadcast_object_list(state)  # what rank 0 saved is all there is
    dist.broadcast_object_list(model)
    net, optimizer, handle = registered(spec, every=2)
    net.load_state_dict(model[0])
    if dist.get_rank() == 0:
        handle.load_state_dict(state[0])
    else:
        with pytest.warns(tg.TelegradWarning, match="nothing of rank 1 of 2: its error memory starts anew"):
            handle.load_state_dict(state[0])
        assert torch.equal(values(net), torch.cat([p.view(-1).double() for p in state[0]["global"].values()]))
    train(net, optimizer, 3, start=5)
    handle.synchronise()
    assert_alike(net)
    other = copy.deepcopy(state[0])
    other["workers"] = 5
    with pytest.warns(tg.TelegradWarning, match="starts anew"):
        handle.load_state_dict(other)
    assert_alike(net)
    other["configuration"]["granularity"] = "model"
    expect(tg.ConfigError, "the state was saved with granularity='model'", lambda: handle.load_state_dict(other))


@scenario
def a_bad_difference_on_one_rank_skips_the_round_on_all():
    for spec in ("outer(topk(k=0.2), feedback=ef, every=2)", "outer(identity, every=4, fragments=2, delay=1)"):
        net, optimizer, handle = registered(spec)
        train(net, optimizer, 5)
        before, memory = copy.deepcopy(handle.global_parameters), handle.state_dict()
        good = values(net)
        if dist.get_rank() == 1:
            with torch.no_grad():
                net.second.bias[1] = torch.nan
        with pytest.warns(tg.TelegradWarning, match="is skipped on all ranks: worker 1, first.weight: .*NaN"):
            train(net, optimizer, 3 if "delay" in spec else 1, start=5)
        assert handle.ledger.skipped_steps == 1
        after = handle.state_dict()
        mine = f"rank{dist.get_rank()}"
        if "delay" not in spec:
            assert same_global(handle, before)
            for part, held in memory[mine]["worker"].items():
                assert all(torch.equal(after[mine]["worker"][part][name], value) for name, value in held.items())
            # The other rank keeps what it has done: it is sent in the next round.
            assert bool((values(net) == good).all()) is False
        assert bool(values(net).isfinite().all())
        train(net, optimizer, 4, start=8)
        handle.synchronise()
        assert_alike(net)
        assert handle.ledger.skipped_steps == 1
        handle.remove()


@scenario
def the_ranks_start_at_rank_0s_parameters_and_evaluate_at_the_global_ones():
    net = Net()
    with torch.no_grad():
        net.first.weight += dist.get_rank()
    net, optimizer, handle = registered("diloco", net=net, every=4)
    assert_alike(net)
    start = values(net)
    train(net, optimizer, 2)
    mine = values(net)
    with handle.at_global_parameters():
        assert torch.equal(values(net), start)
    assert torch.equal(values(net), mine)
    handle.synchronise()
    assert_alike(net)
    assert not torch.equal(values(net), start)


@scenario
def models_of_16_bits_have_global_parameters_of_32():
    net, optimizer, handle = registered("outer(qsgd(levels=15))", net=Net(torch.bfloat16), every=2)
    train(net, optimizer, 4)
    assert_alike(net)
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}
    for name, theta in handle.global_parameters.items():
        assert theta.dtype == torch.float32
        assert torch.equal(theta.bfloat16(), dict(net.named_parameters())[name])


@scenario
def several_inner_optimizers_are_counted_by_the_last():
    net = Net()
    muon = torch.optim.SGD([net.first.weight], lr=0.1)
    rest = torch.optim.AdamW([p for p in net.parameters() if p is not net.first.weight], lr=0.01)
    handle = tg.outer.register(net, [muon, rest], "muloco", every=2)
    for step in range(4):
        for optimizer in (muon, rest):
            optimizer.zero_grad()
        loss_of(net, dist.get_rank(), step).backward()
        for optimizer in (muon, rest):
            optimizer.step()
    assert (handle.steps, handle.ledger.silent_steps) == (4, 2)
    assert_alike(net)


def muon_and_adamw(net):
    matrices = [net.first.weight, net.second.weight]
    rest = [p for p in net.parameters() if all(p is not one for one in matrices)]
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=0.01)]


def train_by_several(net, optimizers, first, steps):
    for step in range(first, first + steps):
        net.zero_grad()
        loss_of(net, dist.get_rank(), step).backward()
        for optimizer in optimizers:
            optimizer.step()


@scenario
def muloco_around_torchs_own_muon():
    """Two rounds are those made by hand: what Muon and AdamW do on each rank, the mean of it, Nesterov's .9 and .8."""
    net, plain = Net(), Net()
    optimizers, alone = muon_and_adamw(net), muon_and_adamw(plain)
    handle = tg.outer.register(net, optimizers, "muloco", every=3)
    theta = [p.detach().clone().requires_grad_() for p in plain.parameters()]
    outer = torch.optim.SGD(theta, lr=0.9, momentum=0.8, nesterov=True)
    for place in range(2):
        train_by_several(net, optimizers, 3 * place, 3)
        train_by_several(plain, alone, 3 * place, 3)
        for own, moved in zip(theta, plain.parameters(), strict=True):
            own.grad = own.detach() - moved.detach()
            dist.all_reduce(own.grad)
            own.grad /= dist.get_world_size()
        outer.step()
        for own, moved in zip(theta, plain.parameters(), strict=True):
            moved.data.copy_(own.data)
        for own, (name, found) in zip(theta, handle.global_parameters.items(), strict=True):
            torch.testing.assert_close(found, own.detach(), rtol=1e-5, atol=1e-6, msg=name)
    assert len(optimizers[0].state) == 2, "Muon's momentum stays with its rank"
    before = float(loss_of(Net(), dist.get_rank(), 99))
    train_by_several(net, optimizers, 6, 60)
    assert_alike(net)
    assert float(loss_of(net, dist.get_rank(), 99)) < before


@scenario
def removed_it_makes_no_more_rounds():
    net, optimizer, handle = registered(f"outer(identity, {STREAMING})")
    train(net, optimizer, 4)  # one fragment travels
    assert handle.gathered_ledger().messages_up == 2 * 2
    handle.remove()
    handle.remove()
    theta, sent = copy.deepcopy(handle.global_parameters), handle.ledger.sent[dist.get_rank()]
    train(net, optimizer, 6, start=4)
    assert same_global(handle, theta)
    assert handle.ledger.sent[dist.get_rank()] == sent
    assert handle.state_dict()["step"] == 4
    tg.outer.register(net, optimizer, "diloco", every=2).remove()


@scenario
def what_does_not_fit_is_refused():
    net = Net()
    optimizer = adamw(net)
    rank = dist.get_rank()
    for error, text, arguments, options in (
        (tg.ConfigError, "ranks do not agree on method", (net, optimizer, f"diloco(every={rank + 2})"), {}),
        (tg.ConfigError, "ranks do not agree on seed", (net, optimizer, "diloco"), {"seed": rank}),
        (tg.SpecError, "exchanges gradients in every step", (net, optimizer, "sgd(identity)"), {}),
        (tg.SpecError, "diloco(every=0)", (net, optimizer, "diloco"), {"every": 0}),
        (tg.ConfigError, "up to fragments=6 are allowed", (net, optimizer, "diloco(fragments=7)"), {}),
        (tg.InputError, "holds no parameter of this model", (net, adamw(Net()), "diloco"), {}),
        (tg.InputError, "a Net is no torch optimizer", (net, net, "diloco"), {}),
        (tg.InputError, "no parameters to train", (nn.ReLU(), optimizer, "diloco"), {}),
        (tg.InputError, "weight is of torch.complex64", (COMPLEX, adamw(COMPLEX), "diloco"), {}),
        (tg.InputError, "weight is of torch.float32 on meta", (META, adamw(META), "diloco"), {}),
        (tg.InputError, "weight has no shape yet: run the model", (nn.LazyLinear(2), optimizer, "diloco"), {}),
        (tg.ConfigError, "did you mean 'every'?", (net, optimizer, "diloco"), {"evry": 3}),
        (tg.ConfigError, "as in outer(randk(k=0.1), fragments=2)", (net, optimizer, "diloco"), {"fragments": 3}),
        (tg.SpecError, "did you mean 'outer'?", (net, optimizer, "outter(identity)"), {}),
    ):
        expect(error, text, lambda a=arguments, o=options: tg.outer.register(*a, **o))
    train(net, optimizer, 1)  # no hook was left behind
    with tg.outer.register(net, optimizer, "diloco") as handle:
        expect(tg.ConfigError, "has an outer loop already", lambda: tg.outer.register(net, optimizer, "diloco"))
        for state in ({}, None, net.state_dict()):
            expect(
                tg.ConfigError, "takes what the handle's own state_dict()", lambda s=state: handle.load_state_dict(s)
            )
    tg.outer.register(net, optimizer, "diloco").remove()  # the optimizer is free again


if __name__ == "__main__":
    warnings.simplefilter("error", tg.TelegradWarning)
    run_all(SCENARIOS, sys.argv[1:])
