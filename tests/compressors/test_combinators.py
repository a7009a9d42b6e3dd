"""Induced, composed, scaled compressors, policies and warm-ups: (0.7), (0.8), E."""

import itertools
import math

import pytest
import torch

import telegrad as tg
from cases import T1, FixedKey, numbers
from telegrad.methods.base import Step

GENERATOR = torch.Generator().manual_seed(8)
X = torch.randn(30, generator=GENERATOR, dtype=torch.float64) ** 3


def compressor(spec):
    return tg.compressor(spec)


def outcomes(spec, x, count):
    """The `count` different estimates that keys give, each once."""
    found = {}
    for seed in range(4000):
        estimate = numbers(compressor(spec).encode(x, tg.Key(seed)))
        found.setdefault(tuple(estimate.tolist()), estimate)
        if len(found) == count:
            return torch.stack(list(found.values()))
    raise AssertionError(f"{len(found)} outcomes, not {count}")


# induced


def test_induced_on_t1_over_all_subsets():
    """E1, E2: Top-1 and Rand-1 on T1: mean T1; MSE = (d/k − 1)(‖T1‖² − 16) = 3 · 5.25; the head is sent exactly."""
    c, drawn = compressor("induced(topk(k=1), randk(k=1))"), outcomes("induced(topk(k=1), randk(k=1))", T1, 4)
    assert drawn.mean(0).tolist() == pytest.approx(T1.tolist())  # one of four places each, that of the head among them
    assert float((drawn - T1).square().sum(1).mean()) == pytest.approx(15.75)
    assert c.variance(T1) == pytest.approx(15.75, rel=1e-12)
    assert bool((drawn[:, 0] == 4).all())
    assert c.omega(4) == pytest.approx(3 * (1 - 1 / 4), rel=1e-6)


def test_equal_entries_attain_the_constant_of_induced_compressors_and_random_ones_do_not():
    """E2, on 500 random vectors: ω = ω_B (1 − α_A)."""
    c = compressor("induced(topk(k=3), randk(k=3))")
    assert c.variance(torch.ones(12, dtype=torch.float64)) / 12 == pytest.approx(c.omega(12), rel=1e-6)
    for power in (0.2, 1, 3, 5, 9):
        for x in torch.randn(100, 12, generator=GENERATOR, dtype=torch.float64) ** power if power > 0.5 else [X[:12]]:
            assert c.variance(x) <= c.omega(12) * float(x @ x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("first", ["sign", "rtn(level=3)", "fixed_point(level=2)", "floating_point(level=0)"])
def test_the_second_part_makes_up_for_what_the_first_one_was_rounded_to(first, dtype):
    """With B = identity nothing is lost but what a last rounding costs: A's float32 scale is no bias."""
    x = X.to(dtype)
    draws = [compressor(f"induced({first}, identity)").encode(x, tg.Key(seed)) for seed in range(3)]
    for code in draws:
        error = (numbers(code) - x.double()).abs()
        assert bool((error <= torch.finfo(dtype).eps * x.double().abs().max()).all())


def test_a_remainder_that_the_dtype_cannot_hold_is_rounded_without_a_bias():
    """One entry whose remainder lies between two bfloat16 numbers: N = 4,000 draws, z = 5."""
    x = torch.tensor([1.0, 0.3671875, -0.71875], dtype=torch.bfloat16)
    c, draws = compressor("induced(rtn(level=3), identity)"), 4000
    sent = torch.stack([numbers(c.encode(x, tg.Key(seed))) for seed in range(draws)])
    spread = sent.std(0)
    assert float(spread.max()) > 0
    assert bool(((sent.mean(0) - x.double()).abs() <= 5 * spread / draws**0.5 + 1e-12).all())


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(tg.SpecError, match="without randomness"):
        compressor("induced(randk(k=1), randk(k=1))")
    with pytest.raises(tg.SpecError, match="an unbiased compressor"):
        compressor("induced(topk(k=1), topk(k=1))")
    with pytest.raises(tg.SpecError, match="an unbiased compressor"):
        compressor("compose(topk(k=1), randk(k=1))")
    for text in ("scaled(natural, by=0)", "scaled(natural, by=1.5)", "policy(identity, sign, below=-1)"):
        with pytest.raises(tg.SpecError, match="is allowed"):
            compressor(text)
    with pytest.raises(tg.SpecError, match="steps"):
        compressor("warmup(identity, sign, steps=0)")


# compose


def test_natural_after_randk_over_subsets_and_roundings():
    """0.8: ω <= (9/8)(d/k) − 1 by enumeration of subsets and the exact Bernoulli variance of A11, d = 5, k = 2."""
    x = torch.tensor([4.3, -2.1, 1.7, 0.9, 3.0], dtype=torch.float64)
    total = 0.0
    for subset in itertools.combinations(range(5), 2):
        inside = torch.zeros(5, dtype=torch.float64)
        inside[list(subset)] = 2.5 * x[list(subset)]
        total += float((inside - x).square().sum()) + compressor("natural").variance(inside)
    c = compressor("compose(natural, randk(k=2))")
    assert c.omega(5) == pytest.approx(9 / 8 * 5 / 2 - 1)
    assert total / 10 <= c.omega(5) * float(x @ x)
    # 32 draws estimate the part that natural compression adds, at most ω_A = 1/8 of E‖B‖².
    assert c.variance(x) == pytest.approx(total / 10, rel=0.02)
    assert c.unbiased


def test_thirds_attain_the_product_of_the_constants():
    """Equal entries 4/3 · 2/5 become 4/3 after Rand-2 of 5: both compressors are at their worst."""
    x = torch.full((5,), 4 / 3 * 2 / 5, dtype=torch.float64)
    c = compressor("compose(natural, randk(k=2))")
    assert c.variance(x) == pytest.approx(c.omega(5) * float(x @ x), rel=1e-9)


def test_a_multiple_of_the_energy_is_averaged_exactly():
    """var of Rand-k is ω‖B‖², so E var = ω_A (1 + ω_B) ‖x‖²: d = 30, (30/3)(30/5) − 1."""
    for spec in ("compose(randk(k=3), randk(k=5))", "compose(permk(workers=10), randk(k=5))"):
        assert compressor(spec).variance(X) == pytest.approx(59 * float(X @ X), rel=1e-9)
        assert compressor(spec).omega(30) == pytest.approx(59)


def test_a_deterministic_inner_part_has_an_exact_variance_and_a_constant():
    c, top = compressor("compose(natural, topk(k=20))"), numbers(compressor("topk(k=20)").encode(X))
    expected = float((X - top).square().sum()) + compressor("natural").variance(top)
    assert c.variance(X) == pytest.approx(expected, rel=1e-12)
    assert not c.unbiased
    assert c.alpha(30) == pytest.approx(2 / 3 - 1 / 8 * (1 + math.sqrt(1 / 3)) ** 2)
    assert torch.allclose(c._mean(X), top)


def test_places_from_a_seed_are_not_told_again():
    """Of 10,000 entries Rand-k sends 1,000 by a seed of 8 bytes; natural compression adds none, QSGD only its zeros."""
    x = torch.randn(10_000, generator=GENERATOR)
    code = compressor("compose(natural, randk(k=1000))").encode(x, tg.Key(0))
    assert code.fields["index"] == 8 * (8 + 2)
    alone = compressor("randk(k=1000, values=log)").encode(x, tg.Key(0))
    assert abs(code.nbits - alone.nbits) <= 0.05 * alone.nbits
    coarse = compressor("compose(qsgd(levels=4), randk(k=1000))").encode(x, tg.Key(0))
    assert coarse.fields["index"] <= 1000 + 200
    assert torch.equal(tg.unpack(tg.pack(coarse)).decode(), coarse.decode())


# scaled


def test_scaled_rand_1_of_two():
    """0.7's test: Rand-1 on d = 2, ω = 1: λ* = 1/2, contraction 1 − α = 1/2; a scan of λ finds no better one."""
    c, x = compressor("scaled(randk(k=1))"), torch.tensor([3.0, -1.0], dtype=torch.float64)
    assert c.factor(2) == 0.5
    assert c.alpha(2) == 0.5
    assert c.variance(x) == pytest.approx(5.0, rel=1e-12)
    scanned = [compressor(f"scaled(randk(k=1), by={k / 20})") for k in range(1, 21)]
    for one in scanned:
        assert one.variance(x) == pytest.approx(10 * ((1 - one.by) ** 2 + one.by**2), rel=1e-12)
        assert one.variance(x) >= c.variance(x) - 1e-12
    assert outcomes("scaled(randk(k=1))", x, 2).abs().sum(0).tolist() == [3.0, 1.0]


@pytest.mark.parametrize("spec", ["randk(k=4)", "natural", "terngrad", "permk(workers=3)"])
def test_an_unbiased_compressor_scaled_has_alpha_one_over_one_plus_omega(spec):
    """0.7: λ = 1/(1 + ω) gives B(1/(1 + ω)), attained where ω is."""
    worst = {
        "natural": torch.full((9,), 4 / 3, dtype=torch.float64),
        "terngrad": torch.tensor([1.0] + [1 / 4] * 8, dtype=torch.float64),
    }.get(spec, torch.ones(9, dtype=torch.float64))
    c, omega = compressor(f"scaled({spec})"), compressor(spec).omega(9)
    assert c.alpha(9) == pytest.approx(1 / (1 + omega), rel=1e-12)
    assert c.variance(worst) == pytest.approx((1 - c.alpha(9)) * float(worst @ worst), rel=1e-9)


def test_comp_becomes_contractive_by_scaling():
    """0.7 with A19.2: η = √(1 − k′/d), ω = k′/k − 1; over all draws of comp(1, 3), d = 6."""
    plain, c = compressor("comp(k=1, k2=3)"), compressor("scaled(comp(k=1, k2=3))")
    assert plain.alpha(6) == 0.0
    eta, omega = math.sqrt(1 / 2), 2.0
    factor = (1 - eta) / ((1 - eta) ** 2 + omega)
    assert c.factor(6) == pytest.approx(factor)
    assert c.alpha(6) == pytest.approx(1 - (1 - factor + factor * eta) ** 2 - factor**2 * omega)
    assert c.alpha(6) > 0
    x = 1 + torch.rand(6, generator=GENERATOR, dtype=torch.float64)
    drawn = outcomes("scaled(comp(k=1, k2=3))", x, 3)
    assert c.variance(x) == pytest.approx(float((drawn - x).square().sum(1).mean()), rel=1e-9)
    assert c.variance(x) <= (1 - c.alpha(6)) * float(x @ x)


def test_what_is_contractive_without_spread_is_left_as_it_is():
    for spec in ("identity", "topk(k=3)", "sign"):
        c = compressor(f"scaled({spec})")
        assert c.factor(30) == 1.0
        assert torch.equal(numbers(c.encode(X)), numbers(compressor(spec).encode(X)))
        assert c.alpha(30) == pytest.approx(compressor(spec).alpha(30))
    half = compressor("scaled(topk(k=3), by=0.5)")
    assert torch.equal(numbers(half.encode(X)), numbers(compressor("topk(k=3)").encode(X)) / 2)


# policy and warm-up


def test_small_tensors_and_named_ones_go_their_own_way():
    c = compressor("policy(identity, randk(k=1), below=10, named='*.bias')")
    key = Step(0, 0.1, tg.Key(0).fold(step=0, piece="layer1.bias")).uplink(1)
    other = Step(0, 0.1, tg.Key(0).fold(step=0, piece="layer1.weight")).uplink(1)
    assert torch.equal(numbers(c.encode(X, key)), X)
    assert int(numbers(c.encode(X, other)).count_nonzero()) == 1
    assert int(numbers(c.encode(X, tg.Key(0))).count_nonzero()) == 1
    assert torch.equal(numbers(c.encode(X[:9], other)), X[:9])
    assert c.omega(9) == 0.0
    assert c.omega(10) == 9.0
    assert c.variance(X[:9]) == 0.0
    assert c.variance(X[:10]) == pytest.approx(9 * float(X[:10] @ X[:10]))


def test_a_named_policy_promises_the_worse_of_both():
    c = compressor("policy(topk(k=1), natural, named=bias)")
    assert not c.unbiased
    assert c.omega(8) == math.inf
    assert c.alpha(8) == 1 / 8
    assert c.eta(8) == pytest.approx(math.sqrt(7 / 8))
    assert c.spread(8) == 0.125


def test_policies_nest_and_print():
    text = "policy(identity, policy(sign, topk(k=2), named='*.bn?.*'), below=5)"
    c = compressor(text)
    assert str(c) == text
    assert compressor(str(c)) == c
    assert len(numbers(c.encode(X, tg.Key(0).fold(piece="a.bn1.weight"))).abs().unique()) == 1
    assert int(numbers(c.encode(X, tg.Key(0).fold(piece="a.conv1.weight"))).count_nonzero()) == 2


def test_in_a_simulation_the_names_of_the_tensors_reach_the_policy():
    result = tg.simulate(
        "digits", "sgd(policy(identity, topk(k=1), named='*.bias'))", workers=2, steps=1, lr=0.1, granularity="tensor"
    )
    plain = tg.simulate("digits", "sgd(topk(k=1))", workers=2, steps=1, lr=0.1, granularity="tensor")
    assert result.ledger.bits_up_per_worker > plain.ledger.bits_up_per_worker


def test_a_warm_up_ends():
    c = compressor("warmup(identity, topk(k=1), steps=3)")
    for index in range(6):
        sent = numbers(c.encode(X, Step(index, 0.1, tg.Key(0).fold(step=index, piece="model")).uplink(0)))
        assert int(sent.count_nonzero()) == (30 if index < 3 else 1)
    assert c.variance(X) == compressor("topk(k=1)").variance(X)
    assert c.alpha(30) == 1 / 30


def test_only_the_draws_of_the_second_part_are_random():
    assert not compressor("induced(topk(k=1), identity)").random
    assert compressor("induced(topk(k=1), natural)").random
    assert numbers(compressor("scaled(sign, by=0.5)").encode(T1, FixedKey(0.5))).tolist() == [0.9375] * 4
