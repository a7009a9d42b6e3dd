"""Run as 2 ranks: FSDP2 with a compressed reduce-scatter; prints one line of JSON a situation."""

import copy
import sys
import warnings

import torch
import torch.distributed as dist
from ddp_scenarios import (
    Net,
    assert_alike,
    batch,
    by_hand,
    expect,
    loss_of,
    resumed_equals_uninterrupted,
    run_all,
    train,
)
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

import telegrad as tg

MLMC = "mlmc(stopk(s=0.1))"
SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def sharded(spec, layers=True, policy=None, **options):
    model = Net()
    more = {"mp_policy": policy} if policy else {}
    if layers:
        for layer in (model.first, model.second):
            fully_shard(layer, **more)
    fully_shard(model, **more)
    return model, (tg.fsdp.register(model, spec, **options) if spec else None)


def whole(model):
    return torch.cat([p.full_tensor().detach().reshape(-1).double() for p in model.parameters()])


@scenario
def the_uncompressed_exchange_is_the_training_of_a_plain_loop():
    model, handle = sharded("identity")
    train(model)
    net, _ = by_hand("sgd(identity)", "model")
    plain = torch.cat([p.detach().reshape(-1).double() for p in net.parameters()])
    torch.testing.assert_close(whole(model), plain, rtol=1e-5, atol=1e-6)
    assert handle.steps == 4
    # Half of the gradients, the other rank's shards, leave a rank in every step.
    dense = 4 * sum(p.numel() for p in net.parameters()) * 32 / 2
    ledger, rank = handle.ledger, dist.get_rank()
    assert dense < ledger.sent[rank] - ledger.parameters[rank] < 1.35 * dense
    # Half of the parameters goes to the other rank, for the forward pass and, but for the root's own, once more for the
    # backward pass.
    root = sum(p.numel() for p in net.extra.parameters())
    assert ledger.parameters[rank] == 4 * 32 * (2 * sum(p.numel() for p in net.parameters()) - root) / 2
    both = handle.gathered_ledger()
    assert both.ranks == [0, 1]
    assert both.parameters == [ledger.parameters[rank]] * 2
    assert both.up[rank] == ledger.up[rank]
    assert both.bits_up_per_worker == sum(one.total() for one in both.up) / 2


@scenario
def compressed_gradients_are_those_of_the_reference_shard_by_shard():
    model, _ = sharded("randk(k=0.25)", layers=False)
    loss_of(model, dist.get_rank(), 0).backward()
    mine = torch.cat([p.grad.full_tensor().reshape(-1) for p in model.parameters()])
    other = [torch.empty_like(mine) for _ in range(2)]
    dist.all_gather(other, mine)
    assert torch.equal(*other)
    assert 0.2 < float((mine != 0).float().mean()) < 0.6, "Rand-k of two ranks leaves most entries at zero"


@scenario
def compressed_training_goes_down_and_repeats_itself():
    losses = []
    for _ in range(2):
        model, _ = sharded(MLMC)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        before = float(loss_of(model, 0, 99))
        train(model, 30, optimizer=optimizer)
        losses.append((before, float(loss_of(model, 0, 99))))
    assert losses[0] == losses[1]
    assert losses[0][1] < 0.8 * losses[0][0]


@scenario
def a_resumed_run_goes_on_bit_for_bit():
    full, _ = sharded(MLMC)
    train(full, 5)
    model, handle = sharded(MLMC)
    optimizer = train(model, 3)
    fresh, again = sharded(MLMC)
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    again.load_state_dict(handle.state_dict())
    twin = torch.optim.SGD(fresh.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(fresh, 2, start=3, optimizer=twin)
    assert torch.equal(whole(fresh), whole(full))
    expect(tg.ConfigError, "saved with mlmc", lambda: sharded("identity")[1].load_state_dict(handle.state_dict()))


@scenario
def a_bad_gradient_on_one_rank_skips_the_step_on_all():
    model, handle = sharded(MLMC)
    assert handle.ledger.sent == [0] * dist.get_world_size(), "an account from the start"
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(4):
        optimizer.zero_grad()
        loss = loss_of(model, dist.get_rank(), step) * (float("nan") if step == 2 and dist.get_rank() else 1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss.backward()
        before = whole(model)
        optimizer.step()
        assert torch.equal(before, whole(model)) == (step == 2)
    assert bool(whole(model).isfinite().all())
    assert handle.ledger.skipped_steps == 1


class Block(nn.Module):
    """Half of it, and not every step uses it; its gradient can be spoilt."""

    def __init__(self):
        super().__init__()
        self.linear, self.bad = nn.Linear(8, 8), False

    def forward(self, x):
        weight = self.linear.weight * 1
        if self.bad:
            weight.register_hook(lambda gradient: gradient * float("nan"))
        return nn.functional.linear(x, weight, self.linear.bias).tanh() + x


def blocks_of(spec):
    torch.manual_seed(0)
    blocks = nn.ModuleList([Block() for _ in range(3)])
    for block in blocks:
        fully_shard(block)
    return blocks, tg.fsdp.register(blocks, spec)


def train_blocks(blocks, optimizer, steps, bad_step=None):
    for step in steps:
        optimizer.zero_grad()
        blocks[1].bad = step == bad_step and dist.get_rank() == 1
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(10 * step + dist.get_rank()))
        for number, block in enumerate(blocks):
            x = block(x) if number != 1 or step % 2 else x
        x.square().mean().backward()
        optimizer.step()


@scenario
def a_block_that_not_every_step_uses_has_the_same_clock():
    blocks, handle = blocks_of("randk(k=0.25)")
    optimizer = torch.optim.AdamW(blocks.parameters(), lr=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train_blocks(blocks, optimizer, range(3))
        before = whole(blocks)
        train_blocks(blocks, optimizer, [3], bad_step=3)
    assert torch.equal(before, whole(blocks)), "all of the bad step is left out"
    train_blocks(blocks, optimizer, range(4, 6))
    assert bool(whole(blocks).isfinite().all())
    assert (handle.steps, handle.ledger.skipped_steps) == (6, 1)
    assert handle.calls == {"0": 6, "1": 3, "2": 6}

    def closure():
        optimizer.zero_grad()
        blocks[0].bad = dist.get_rank() == 0
        loss = blocks[2](blocks[0](torch.ones(2, 8))).square().mean()
        loss.backward()
        return loss

    before = whole(blocks)
    optimizer.step(closure)
    assert torch.equal(before, whole(blocks))
    assert handle.ledger.skipped_steps == 2


@scenario
def adamw_resumed_from_a_distributed_checkpoint_goes_on_bit_for_bit():
    resumed_equals_uninterrupted(lambda: sharded(MLMC), whole)


@scenario
def a_resumed_run_draws_on_also_for_blocks_that_were_not_used_yet():
    full, _ = blocks_of("randk(k=0.25)")
    train_blocks(full, torch.optim.SGD(full.parameters(), lr=0.05), range(6))
    blocks, handle = blocks_of("randk(k=0.25)")
    train_blocks(blocks, torch.optim.SGD(blocks.parameters(), lr=0.05), range(3))
    fresh, again = blocks_of("randk(k=0.25)")
    assert set(again.state_dict()) == set(handle.state_dict())
    again.load_state_dict(handle.state_dict())
    fresh.load_state_dict(blocks.state_dict())
    train_blocks(fresh, torch.optim.SGD(fresh.parameters(), lr=0.05), range(3, 6))
    assert torch.equal(whole(fresh), whole(full))


@scenario
def a_removed_exchange_leaves_plain_fsdp():
    plain, _ = sharded(None)
    model, _ = sharded(None)
    with tg.fsdp.register(model, MLMC) as handle:
        loss_of(model, dist.get_rank(), 0).backward()
        model.zero_grad()
    train(plain)
    train(model)
    assert torch.equal(whole(plain), whole(model))
    assert handle.steps == handle.ledger.steps == 1
    assert handle.gathered_ledger().steps == 1


@scenario
def torchs_default_device_changes_nothing():
    """ "meta" stands in for "cuda", which not every machine has."""
    rank = dist.get_rank()
    data = [batch(rank, step) for step in range(4)]

    def loss(model, rank, step):
        x, y = data[step]
        return (model(x) - y).square().mean()

    def run(spec, device):
        (model, _), (fresh, _) = sharded(None), sharded(None)
        torch.set_default_device(device)
        try:
            handle = tg.fsdp.register(model, spec)
            handle.error_every = 1
            optimizer = train(model, 2, loss=loss)
            state = copy.deepcopy(handle.state_dict())
            told = [handle.gathered_ledger().to_dict(), handle.steps, sorted(handle.metrics()), state]
            weights, averages = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            train(model, 2, start=2, loss=loss, optimizer=optimizer)
            again = tg.fsdp.register(fresh, spec)
            fresh.load_state_dict(weights)
            again.load_state_dict(state)
            twin = torch.optim.SGD(fresh.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
            twin.load_state_dict(averages)
            train(fresh, 2, start=2, loss=loss, optimizer=twin)
            again.remove()
        finally:
            torch.set_default_device(None)
        return whole(model), whole(fresh), told

    for spec in (MLMC, "randk(k=0.25)", "qsgd(levels=4)", "identity"):
        wanted, found = run(spec, None), run(spec, "meta")
        assert torch.equal(wanted[0], wanted[1]), spec
        assert all(map(torch.equal, found[:2], wanted[:2])), spec
        assert found[2] == wanted[2], spec


@scenario
def gradients_reduced_in_bf16():
    model, _ = sharded(MLMC, policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, dist.get_rank(), step).float().backward()
        optimizer.step()
    assert bool(whole(model).isfinite().all())


@scenario
def accumulation_without_synchronisation():
    model, handle = sharded("identity")
    model.set_requires_gradient_sync(False)
    loss_of(model, dist.get_rank(), 0).backward()
    model.set_requires_gradient_sync(True)
    loss_of(model, dist.get_rank(), 1).backward()
    assert handle.steps == 1
    plain = Net()
    for rank in range(2):
        for step in range(2):
            loss_of(plain, rank, step).backward()
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert isinstance(mine.grad, DTensor)
        torch.testing.assert_close(mine.grad.full_tensor(), theirs.grad / 2, rtol=1e-5, atol=1e-6)


@scenario
def what_does_not_fit_is_refused():
    expect(tg.SpecError, "topk(k=0.1) is biased", lambda: sharded("topk(k=0.1)"))
    expect(tg.SpecError, "wants the last estimate", lambda: sharded("mlmc(shared_order(s=0.1))"))
    model, _ = sharded("identity")
    model.set_gradient_divide_factor(3.0)
    expect(tg.ConfigError, "set_force_sum_reduction_for_comms", lambda: loss_of(model, dist.get_rank(), 0).backward())
    expect(tg.InputError, "fully_shard", lambda: tg.fsdp.register(Net(), MLMC))
    assert_alike(Net())


if __name__ == "__main__":
    run_all(SCENARIOS, sys.argv[1:])
