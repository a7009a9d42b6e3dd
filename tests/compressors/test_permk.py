"""PermK (A20): the joint law of all workers, by enumeration of who gets what."""

import pytest
import torch

import telegrad as tg
from cases import numbers
from telegrad.wire.positions import Share

GENERATOR = torch.Generator().manual_seed(20)


def estimates(c, inputs, key):
    """What each worker sends for its own input, as rows."""
    return torch.stack([numbers(c.encode(a, key.fold(rank=rank))) for rank, a in enumerate(inputs)])


def one_key_for_every_deal(workers, d, count):
    """Keys of the `count` deals there are, each once: by symmetry of the two permutations all are equally likely."""
    c, ones, found = tg.compressor(f"permk(workers={workers})"), [torch.ones(d)] * workers, {}
    for seed in range(2000):
        key = tg.Key(seed)
        found.setdefault(tuple((estimates(c, ones, key) != 0).flatten().tolist()), key)
        if len(found) == count:
            break
    assert len(found) == count
    return list(found.values())


# n, d, the number of deals, A = B. n = 2, d = 4: which two of four; n = 4, d = 2: which two workers send the first;
# n = 2, d = 3: which of the workers has which one entry; n = 3, d = 2: which worker is alone with which entry.
DEALS = [(2, 4, 6, 1.0), (4, 2, 6, 1 / 3), (2, 3, 6, 1.0), (3, 2, 6, None), (1, 3, 1, 1.0), (3, 3, 6, 1.0)]


@pytest.mark.parametrize(("workers", "d", "count", "constant"), DEALS)
def test_every_deal(workers, d, count, constant):
    """A20.1, A20.2: each worker unbiased with ω = min(n, d) − 1; jointly A = B = 1, or (d−1)/(n−1), with equality."""
    c = tg.compressor(f"permk(workers={workers})")
    inputs = torch.randn(workers, d, generator=GENERATOR, dtype=torch.float64)
    keys = one_key_for_every_deal(workers, d, count)
    drawn = torch.stack([estimates(c, inputs, key) for key in keys])
    assert torch.allclose(drawn.mean(0), inputs, rtol=1e-12)
    for rank, a in enumerate(inputs):
        error = float((drawn[:, rank] - a).square().sum(1).mean())
        assert error == pytest.approx((min(workers, d) - 1) * float(a @ a), rel=1e-12)
        assert c.variance(a) == pytest.approx(error, rel=1e-12)
        assert c.omega(d) == min(workers, d) - 1
    joint = float((drawn.mean(1) - inputs.mean(0)).square().sum(1).mean())
    between = float(inputs.square().sum(1).mean() - inputs.mean(0).square().sum())
    if constant is not None:
        assert joint == pytest.approx(constant * between, rel=1e-9, abs=1e-15)
    if workers % d == 0 or d >= workers:
        same = [
            numbers(code)
            for code in [c.encode(inputs[0], key.fold(rank=rank)) for key in keys[:1] for rank in range(workers)]
        ]
        assert torch.allclose(torch.stack(same).mean(0), inputs[0], rtol=1e-12)


@pytest.mark.parametrize(("workers", "d"), [(2, 4), (4, 2), (2, 3)])
def test_all_deals_are_equally_likely(workers, d):
    """Chi-square over the 6 deals, N = 3,000 keys. Null: uniform; 44 is the 1 − 2e-8 quantile at 5 degrees."""
    c, counts = tg.compressor(f"permk(workers={workers})"), {}
    for seed in range(3000):
        key = tg.Key(7).fold(step=seed)
        deal = tuple((estimates(c, [torch.ones(d)] * workers, key) != 0).flatten().tolist())
        counts[deal] = counts.get(deal, 0) + 1
    assert len(counts) == 6
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 44


@pytest.mark.parametrize(("workers", "d"), [(3, 100), (7, 100), (100, 7), (16, 16)])
def test_the_shares_divide_the_entries_up(workers, d):
    c = tg.compressor(f"permk(workers={workers})")
    sent = torch.stack([c.encode(torch.ones(d), tg.Key(1).fold(rank=rank)).decode() for rank in range(workers)]) != 0
    by_entry, by_worker = sent.sum(0), sent.sum(1)
    assert int(by_worker.min()) >= 1
    assert int(by_entry.max() - by_entry.min()) <= (1 if workers > d else 0)
    assert int(by_worker.max() - by_worker.min()) <= 1
    assert set(by_entry.tolist()) <= {-(-workers // d), max(1, workers // d)}


def test_in_a_simulation_equal_gradients_arrive_without_error():
    """Through `Step.uplink`: four workers with the same gradient lose nothing, whatever the step."""
    from telegrad.methods.base import Step, mean_of

    x = torch.randn(10, generator=GENERATOR)
    c = tg.compressor("permk(workers=4)")
    for index in range(3):
        step = Step(index, 0.1, tg.Key(0).fold(step=index, piece="model"))
        codes = [tg.unpack(tg.pack(c.encode(x, step.uplink(rank)))) for rank in range(4)]
        assert torch.allclose(mean_of(codes), x, rtol=1e-6)


def test_no_index_is_sent_and_a_key_without_rank_is_that_of_rank_0():
    x = torch.randn(10_000, generator=GENERATOR)
    c = tg.compressor("permk(workers=100)")
    code = c.encode(x, tg.Key(0).fold(step=1))
    assert code.fields["value"] == 32 * 100
    assert code.fields["index"] == 8 * (8 + 2) if code.terms[0].positions.part < 128 else 8 * (8 + 3)
    assert code.terms[0].positions == c.encode(x, tg.Key(0).fold(step=1).fold(rank=0)).terms[0].positions


@pytest.mark.parametrize("rank", [4, -1, "a"])
def test_a_rank_that_is_none_of_the_workers_is_refused(rank):
    with pytest.raises(tg.InputError, match=r"is none of 0 … 3"):
        tg.compressor("permk(workers=4)").encode(torch.ones(9), tg.Key(0).fold(rank=rank))


def test_keys_are_looked_up_and_stepped_back():
    key = tg.Key(3).fold(step=5, piece="w").fold(role="uplink", rank=2)
    assert tg.Context.of(key, (3, 4)) == tg.Context(rank=2, step=5, name="w", shape=(3, 4))
    assert tg.Context.of(key.fold(rank=4)).rank == 4
    assert tg.Context.of(tg.Key(3)) == tg.Context()
    assert key.without("rank") == tg.Key(3).fold(step=5, piece="w").fold(role="uplink")
    assert torch.equal(key.without("rank").uniform(5), tg.Key(3).fold(step=5, piece="w").fold(role="uplink").uniform(5))


def test_shares_of_foreign_messages_are_checked():
    from telegrad.errors import WireError
    from telegrad.wire.bits import Reader

    share = Share(10, 3, 2, 5)
    read = Share.read(Reader(share.write()), 10)
    assert torch.equal(read.indices(), share.indices())
    assert len(share.write()) == share.nbytes
    assert share.n == 3
    assert share.keep(torch.tensor([0, 2])).indices().tolist() == share.indices()[[0, 2]].tolist()
    for bad in (Share(10, 3, 3, 5), Share(10, 11, 0, 5)):
        with pytest.raises(WireError, match="part"):
            Share.read(Reader(bad.write()), 10)
