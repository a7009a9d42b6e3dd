"""Top-k, s-Top-k and Rand-k: which entries are kept, and the numbers of A2, A3 and A4."""

import itertools

import pytest
import torch

import telegrad as tg
from cases import T1, FixedKey, numbers
from telegrad.kernels.selection.by_rank import largest_entries

KEY = tg.Key(seed=1)


def decoded(spec, x, key=KEY):
    c = tg.compressor(spec)
    return c.decode(c.encode(x, key))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_topk_on_t1(k):
    """A2: k = 1 gives (4, 0, 0, 0), error 5.25, α = .7529412."""
    c = tg.compressor(f"topk(k={k})")
    expected = torch.where(torch.arange(4) < k, T1, 0.0)
    assert torch.equal(decoded(f"topk(k={k})", T1), expected)
    assert c.variance(T1) == pytest.approx(float((T1 - expected).square().sum()), rel=1e-12)
    if k == 1:
        assert 1 - c.variance(T1) / 21.25 == pytest.approx(0.7529412, abs=5e-8)


@pytest.mark.parametrize("spec", ["topk(k=3)", "topk(k=0.25)", "stopk(s=1, keep=3)", "stopk(s=3)"])
def test_equal_magnitudes_attain_alpha(spec):
    """A2.1, A3.1: 1 − α = 1 − k/d exactly, and by no other vector of the family below."""
    c, x = tg.compressor(spec), torch.tensor([1.5, -1.5] * 6, dtype=torch.float64)
    assert c.alpha(12) == pytest.approx(0.25)
    assert c.variance(x) == pytest.approx((1 - c.alpha(12)) * float(x.square().sum()), rel=1e-12)
    x[0] = 1.6
    assert c.variance(x) < (1 - c.alpha(12)) * float(x.square().sum())


def test_ties_go_to_the_lowest_indices():
    x = torch.tensor([1.0, -2.0, 1.0, -1.0, 2.0, 1.0])
    assert largest_entries(x, 3).tolist() == [0, 1, 4]
    assert largest_entries(x, 4).tolist() == [0, 1, 2, 4]
    assert torch.equal(decoded("topk(k=5)", x), torch.tensor([1.0, -2.0, 1.0, -1.0, 2.0, 0.0]))


@pytest.mark.parametrize("seed", range(20))
def test_the_selection_is_a_stable_sort_by_magnitude(seed):
    """Against a plain sort, on vectors with many ties."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-4, 5, (60,), generator=generator).float()
    for k in (1, 7, 30, 59, 60):
        expected = sorted(sorted(range(60), key=lambda i: (-abs(float(x[i])), i))[:k])
        assert largest_entries(x, k).tolist() == expected


@pytest.mark.parametrize(("s", "keep", "d"), [(2, 3, 20), (3, 2, 7), (3, 3, 7), (1, 5, 9)])
def test_the_first_blocks_are_the_largest_entries(s, keep, d):
    """A3.1: the union of the first blocks is Top-(s · keep), the last block may be shorter."""
    x = torch.randn(d, generator=torch.Generator().manual_seed(d))
    assert torch.equal(decoded(f"stopk(s={s}, keep={keep})", x), decoded(f"topk(k={min(d, s * keep)})", x))
    assert tg.compressor(f"stopk(s={s}, keep={keep})").alpha(d) == min(1.0, s * keep / d)


def test_a_fraction_is_rounded_and_is_at_least_one_entry():
    x = torch.arange(1.0, 31.0)
    for fraction, kept in [(0.01, 1), (0.05, 2), (0.5, 15), (0.99, 30), (1.0, 30)]:
        assert int(decoded(f"topk(k={fraction})", x).count_nonzero()) == kept


@pytest.mark.parametrize("spec", ["topk(k=5)", "stopk(s=5)", "randk(k=5)", "importance(k=5)", "mlmc(stopk(s=5))"])
def test_more_entries_than_there_are_is_refused(spec):
    argument = spec.rstrip(")").rsplit("(", 1)[1]
    for call in ("encode", "variance"):
        with pytest.raises(tg.SpecError) as refused:
            getattr(tg.compressor(spec), call)(*[torch.ones(4), KEY][: 2 if call == "encode" else 1])
        text = str(refused.value)
        assert argument in text
        assert "d = 4" in text
        assert "a fraction such as" in text


# Rand-k


def subset_of(seed, d, k):
    return tuple(tg.Key(seed).subset(d, k).tolist())


def one_seed_for_every_subset(d, k):
    """Seeds of the wire's subsets, one for each k-subset of d."""
    found, seed = {}, 0
    while len(found) < len(list(itertools.combinations(range(d), k))):
        found.setdefault(subset_of(seed, d, k), seed)
        seed += 1
    return found


def test_every_subset_of_randk_counts_the_same():
    """Chi-square over the 10 subsets of d = 5, k = 2, from 20,000 keys. Null: uniform; 53 is the 1 − 3e-8 quantile."""
    draws, counts = 20_000, dict.fromkeys(itertools.combinations(range(5), 2), 0)
    for draw in range(draws):
        counts[tuple(KEY.fold(draw=draw).subset(5, 2).tolist())] += 1
    expected = draws / 10
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 53


@pytest.mark.parametrize("scaled", [True, False])
def test_randk_over_all_subsets(scaled):
    """A4.1: mean x and ω = d/k − 1 = 1.5 for every x; A4.2: unscaled, bias 1 − k/d and variance (k/d)(1 − k/d)."""
    x = torch.tensor([4.0, -2.0, 1.0, 0.5, 3.0], dtype=torch.float64)
    energy = float(x.square().sum())
    c = tg.compressor(f"randk(k=2, scaled={scaled})")
    seeds = one_seed_for_every_subset(5, 2)
    estimates = torch.stack([numbers(c.encode(x, FixedKey(0.5, {"subset": seed}))) for seed in seeds.values()])
    for subset, estimate in zip(seeds, estimates, strict=True):
        assert tuple(estimate.nonzero().flatten().tolist()) == subset
    mean = estimates.mean(0)
    error = float((estimates - x).square().sum(1).mean())
    assert c.variance(x) == pytest.approx(error, rel=1e-9)
    if scaled:
        assert torch.allclose(mean, x, rtol=1e-12)
        assert error == pytest.approx(1.5 * energy, rel=1e-12)
        assert c.omega(5) == pytest.approx(1.5)
    else:
        assert torch.allclose(mean, 0.4 * x, rtol=1e-12)
        assert float((estimates - mean).square().sum(1).mean()) == pytest.approx(0.24 * energy, rel=1e-12)
        assert error == pytest.approx((1 - c.alpha(5)) * energy, rel=1e-12)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("coding", ["bf16", "log", "sign"])
def test_coded_randk_has_its_exact_variance_over_subsets_and_codings(coding, scaled):
    """variance(x) against enumeration of subsets and, for each, of the two values that a coded entry can take."""
    x = torch.tensor([4.3, -2.1, 1.7, 0.0, 3.0, -0.3], dtype=torch.float64)
    c = tg.compressor(f"randk(k=3, values={coding}, scaled={scaled})")
    seeds = one_seed_for_every_subset(6, 3)
    total = 0.0
    for subset, seed in seeds.items():
        inside = torch.zeros(6, dtype=torch.float64)
        inside[list(subset)] = x[list(subset)] * (2 if scaled else 1)
        first, second = (numbers(c.encode(x, FixedKey(u, {"subset": seed}))) for u in (0.0, 1 - 2.0**-53))
        share = torch.where(first == second, 0.0, (inside - second) / (first - second))
        assert bool(((share >= 0) & (share <= 1)).all())
        total += float((share * (first - x).square() + (1 - share) * (second - x).square()).sum())
    assert c.variance(x) == pytest.approx(total / len(seeds), rel=1e-9)


def test_randk_sends_no_index():
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    code = tg.compressor("randk(k=100)").encode(x, KEY)
    assert code.fields["value"] == 100 * 32
    assert code.fields["index"] == 8 * (8 + 1)  # a seed and a count
    assert code.nbits < 3200 + 300


def test_ranks_draw_their_own_subsets_and_equal_keys_the_same():
    """A4's pitfall: a common subset would make the workers' errors the same."""
    c, x = tg.compressor("randk(k=3)"), torch.ones(50)
    drawn = [c.encode(x, KEY.fold(rank=rank)).decode().nonzero().flatten().tolist() for rank in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]


@pytest.mark.parametrize("spec", ["mlmc(stopk(s=0.01, values=sign))", "importance(k=0.01)", "randk(k=0.01)"])
def test_a_batch_of_long_gradients_is_encoded_by_several_threads_as_by_one(spec, threads):
    compressor, batch = tg.compressor(spec), tg.Key(1).normal(4 * 70_000).view(4, 70_000).float()
    keys = [tg.Key(2).fold(rank=rank) for rank in range(4)]
    alone = [tg.pack(compressor.encode(row, key)) for row, key in zip(batch, keys, strict=True)]
    threads(2)
    assert [tg.pack(code) for code in compressor.encode_each(batch, keys)] == alone
    batch[2, 5] = float("nan")
    with pytest.raises(tg.NonFiniteError, match="NaN or infinity"):
        compressor.encode_each(batch, keys)
