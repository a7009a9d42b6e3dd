"""Key: the streams' laws, their independence, and that they never change silently.

Statistical tests: the null is the law in question, N and the level stand with each test, seeds are fixed.
"""

import math

import pytest
import torch

from telegrad.random import Key

N = 100_000


def kolmogorov_smirnov(sample, cdf):
    """√N · sup |F_N − F|: above 2.5 with probability 7e-6 under the null."""
    ordered = cdf(sample.sort().values)
    n = len(ordered)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return math.sqrt(n) * float(torch.maximum((ordered - steps[:-1]).abs(), (ordered - steps[1:]).abs()).max())


def chi_square_z(observed, expected):
    """The chi-square statistic, standardised by Wilson and Hilferty: normal under the null for many cells."""
    df = len(observed) - 1
    ratio = float(((observed.double() - expected) ** 2 / expected).sum()) / df
    return (ratio ** (1 / 3) - (1 - 2 / (9 * df))) / math.sqrt(2 / (9 * df))


@pytest.mark.parametrize("key", [Key(0), Key(1), Key(-5), Key(0).fold(step=3, rank=1, name="layer1.weight")], ids=repr)
def test_uniforms_are_uniform(key):
    """N = 100,000: mean and variance within 5 standard errors (level 6e-7 each), KS below 2.5, bits fair."""
    u = key.uniform(N)
    assert u.dtype == torch.float64
    assert float(u.min()) >= 0.0
    assert float(u.max()) < 1.0
    assert torch.equal((u * 2.0**53).frac(), torch.zeros(N, dtype=torch.float64))
    assert abs(float(u.mean()) - 0.5) < 5 * math.sqrt(1 / 12 / N)
    assert abs(float(u.var()) - 1 / 12) < 5 * math.sqrt(1 / 180 / N)
    assert kolmogorov_smirnov(u, lambda x: x) < 2.5
    raw = (u * 2.0**53).to(torch.int64)
    for bit in range(53):
        assert abs(int((raw >> bit & 1).sum()) - N / 2) < 5 * math.sqrt(N) / 2


def test_normals_are_normal():
    """N = 100,000: mean, variance and fourth moment within 5 standard errors, KS below 2.5."""
    z = Key(2).normal(N)
    assert abs(float(z.mean())) < 5 / math.sqrt(N)
    assert abs(float(z.square().mean()) - 1) < 5 * math.sqrt(2 / N)
    assert abs(float((z**4).mean()) - 3) < 5 * math.sqrt(96 / N)
    assert kolmogorov_smirnov(z, torch.special.ndtr) < 2.5
    assert bool(z.isfinite().all())


PAIRS = {
    "seed": (Key(0), Key(1)),
    "rank": (Key(0).fold(rank=0), Key(0).fold(rank=1)),
    "step": (Key(0).fold(step=6), Key(0).fold(step=7)),
    "name": (Key(0).fold(name="ab"), Key(0).fold(name="ba")),
    "role": (Key(0).fold(role="level"), Key(0).fold(role="values")),
    "which name is folded": (Key(0).fold(rank=1), Key(0).fold(step=1)),
    "number or text": (Key(0).fold(rank=1), Key(0).fold(rank="1")),
    "the order of calls": (Key(0).fold(a=1).fold(b=2), Key(0).fold(b=2).fold(a=1)),
    "folded or not": (Key(0), Key(0).fold(rank=0)),
    "a neighbour of a neighbour": (Key(0).fold(rank=1, step=2), Key(0).fold(rank=2, step=1)),
}


@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS)
def test_keys_that_differ_have_independent_streams(one, other):
    """N = 100,000: no equal element, correlation 0 within 5 standard errors at lags −2 … 2, a table of pairs.

    The chi-square of the 10 × 10 table has 99 degrees of freedom; standardised, 5 is a level of 3e-7.
    """
    a, b = one.uniform(N), other.uniform(N)
    assert int((a == b).sum()) == 0
    for lag in range(-2, 3):
        shifted = b.roll(lag)
        correlation = float(((a - 0.5) * (shifted - 0.5)).mean()) * 12
        assert abs(correlation) < 5 / math.sqrt(N)
    cells = torch.bincount((a * 10).long() * 10 + (b * 10).long(), minlength=100)
    assert abs(chi_square_z(cells, N / 100)) < 5


def test_neighbours_within_a_stream_are_independent():
    """Serial pairs in a 10 × 10 table; N = 100,000 pairs, level 3e-7."""
    u = Key(5).uniform(2 * N).view(N, 2)
    cells = torch.bincount((u[:, 0] * 10).long() * 10 + (u[:, 1] * 10).long(), minlength=100)
    assert abs(chi_square_z(cells, N / 100)) < 5


def test_first_elements_of_many_keys_are_uniform():
    """Keys made by counting, as steps and ranks make them: KS over 10,000 first elements, level 7e-6."""
    firsts = torch.cat([Key(0).fold(step=step).uniform(1) for step in range(10_000)])
    assert kolmogorov_smirnov(firsts, lambda x: x) < 2.5


def test_the_order_of_keyword_arguments_does_not_matter():
    key = Key(3)
    assert key.fold(step=1, rank=2) == key.fold(rank=2, step=1)
    assert torch.equal(key.fold(step=1, rank=2).uniform(5), key.fold(rank=2, step=1).uniform(5))


@pytest.mark.parametrize(("start", "n"), [(0, 10), (1, 9), (37, 100), (2**40, 5)])
def test_an_element_is_a_function_of_key_and_place(start, n):
    key = Key(8).fold(rank=2)
    assert torch.equal(key.uniform(n, start=start), torch.cat([key.uniform(1, start=start + i) for i in range(n)]))
    assert torch.equal(
        key.integers(n, 77, start=start), torch.cat([key.integers(1, 77, start=start + i) for i in range(n)])
    )
    if start < 100:
        assert torch.equal(key.uniform(start + n)[start:], key.uniform(n, start=start))


def test_one_number_is_an_element_of_the_stream():
    key = Key(8).fold(rank=2)
    assert [key.number(), key.number(7), key.number(2**40)] == [
        float(key.uniform(1)),
        float(key.uniform(8)[7]),
        float(key.uniform(1, start=2**40)),
    ]


@pytest.mark.parametrize("high", [1, 2, 3, 10, 97])
def test_integers_are_uniform(high):
    """N = 100,000, chi-square over the values, level 3e-7 for more than two of them (5 standard errors for two)."""
    drawn = Key(4).integers(N, high)
    counts = torch.bincount(drawn, minlength=high)
    assert len(counts) == high
    if high <= 2:
        assert int((counts - N / high).abs().max()) <= 5 * math.sqrt(N) / 2
    else:
        assert abs(chi_square_z(counts, N / high)) < 5


def test_integers_reach_both_ends_of_a_wide_range():
    drawn = Key(4).integers(N, 2**31 - 1)
    assert 0 <= int(drawn.min()) < 2**31 / 1000
    assert 2**31 * 0.999 < int(drawn.max()) < 2**31 - 1


@pytest.mark.parametrize("high", [0, -1, 2**31])
def test_integers_refuse_an_impossible_range(high):
    with pytest.raises(ValueError, match=r"0 < high < 2\^31"):
        Key(0).integers(3, high)


def test_permutations_are_uniform():
    """All 24 orders of 4 from 12,000 keys: chi-square, 23 degrees of freedom, level 3e-7."""
    orders = torch.stack([Key(1).fold(i=i).permutation(4) for i in range(12_000)])
    assert torch.equal(orders.sort(1).values, torch.arange(4).expand(12_000, 4))
    codes = (orders * torch.tensor([64, 16, 4, 1])).sum(1)
    _, counts = codes.unique(return_counts=True)
    assert len(counts) == 24
    assert abs(chi_square_z(counts, 500)) < 5


@pytest.mark.parametrize(("n", "k"), [(6, 1), (6, 3), (6, 4), (7, 2)])
def test_subsets_are_uniform(n, k):
    """All k-subsets from 12,000 keys: chi-square over them, level 3e-7; past n/2 the complement is drawn."""
    draws = 12_000
    masks = torch.stack([(2 ** Key(6).fold(i=i).subset(n, k)).sum() for i in range(draws)])
    _, counts = masks.unique(return_counts=True)
    assert len(counts) == math.comb(n, k)
    assert abs(chi_square_z(counts, draws / math.comb(n, k))) < 5


@pytest.mark.parametrize(("n", "k"), [(0, 0), (5, 0), (5, 5), (1, 1), (10_000, 1), (10_000, 4_999), (10_000, 9_999)])
def test_a_subset_has_k_increasing_places(n, k):
    places = Key(0).subset(n, k)
    assert places.dtype == torch.int64
    assert len(places) == k
    assert bool((places.diff() > 0).all())
    assert k == 0 or (int(places[0]) >= 0 and int(places[-1]) < n)


@pytest.mark.parametrize("k", [-1, 4])
def test_an_impossible_subset_is_refused(k):
    with pytest.raises(ValueError, match=rf"n=3, k={k}.*0 <= k <= n"):
        Key(0).subset(3, k)


@pytest.mark.parametrize("seed", [True, 1.0, "1", None])
def test_a_seed_is_an_integer(seed):
    with pytest.raises(TypeError, match="a seed is an integer"):
        Key(seed)


@pytest.mark.parametrize("value", [True, 1.0, None, (1,)])
def test_only_integers_and_strings_are_folded(value):
    with pytest.raises(TypeError, match=r"fold\(rank="):
        Key(0).fold(rank=value)


def test_a_key_can_be_rebuilt_from_its_integer():
    word = Key(0).fold(rank=3).to_int()
    assert 0 <= word < 2**64
    assert torch.equal(Key(seed=word).uniform(4), Key(seed=word).uniform(4))
    assert len({Key(0).fold(rank=rank).to_int() for rank in range(1000)}) == 1000


def test_global_generators_are_neither_read_nor_moved():
    torch.manual_seed(0)
    state, first = torch.get_rng_state(), Key(1).uniform(3)
    torch.manual_seed(1)
    assert torch.equal(Key(1).uniform(3), first)
    torch.manual_seed(0)
    Key(1).normal(3), Key(1).permutation(3), Key(1).subset(9, 3), Key(1).integers(3, 5), Key(1).generator().random()
    assert torch.equal(torch.get_rng_state(), state)


PINNED = {
    "to_int": 2703671596826016399,
    "uniform": [0.18474231613276615, 0.1567723396081615, 0.720713646920987, 0.09999120506116843],
    "integers": [184, 156, 720, 99, 357, 382],
    "permutation": [7, 3, 1, 0, 6, 4, 5, 2],
    "subset": [9, 15, 18, 35, 72],
    "dense subset": [0, 2, 3, 4, 5, 6, 8, 9],
    "normal": [-0.8974391452090825, -1.0078120931508188, 0.5849628358539899],
    "generator": [1036870100, 855968236, 1426301047],
    "negative seed": 0.5358734761943342,
}


def test_the_streams_are_these_for_ever():
    """Pinned: a change here makes every recorded run and every message of Rand-k unreadable."""
    key = Key(seed=0).fold(step=3, rank=1, name="layer1.weight")
    assert key.to_int() == PINNED["to_int"]
    assert key.uniform(4).tolist() == PINNED["uniform"]
    assert key.integers(6, 1000).tolist() == PINNED["integers"]
    assert key.permutation(8).tolist() == PINNED["permutation"]
    assert key.subset(100, 5).tolist() == PINNED["subset"]
    assert key.subset(10, 8).tolist() == PINNED["dense subset"]
    assert key.normal(3).tolist() == pytest.approx(PINNED["normal"], rel=1e-14)
    assert key.generator().integers(0, 2**32, 3).tolist() == PINNED["generator"]
    assert Key(seed=-1).uniform(1).item() == PINNED["negative seed"]
