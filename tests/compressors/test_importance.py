"""Optimal importance sparsification (A5)."""

import pytest
import torch

import telegrad as tg
from cases import T1, FixedKey, numbers
from telegrad.compressors.importance import counted_threshold, optimal_threshold
from telegrad.kernels.selection.by_rank import SMALL

BELOW_ONE = 1 - 2.0**-53


def inclusion(c, x):
    """P(entry j is sent): it is for uniforms below |x_j| / t, which is found by bisection on what `encode` sends."""
    low, high = torch.zeros(len(x), dtype=torch.float64), torch.ones(len(x), dtype=torch.float64)
    low[numbers(c.encode(x, FixedKey(BELOW_ONE))) != 0] = 1.0
    high[numbers(c.encode(x, FixedKey(0.0))) == 0] = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        sent = torch.stack([numbers(c.encode(x, FixedKey(float(u)))) != 0 for u in middle]).diagonal()
        low, high = torch.where(sent, middle, low), torch.where(sent, high, middle)
    return low


@pytest.mark.parametrize("values", ["sign", "fp32"])
def test_importance_on_t1(values):
    """A5.2, A5.3: k = 2 gives π = (1, 4/7, 2/7, 1/7), MSE 7, ω = .3294118; each sent entry is x_j / π_j."""
    c = tg.compressor(f"importance(k=2, values={values})")
    pi = torch.tensor([1, 4 / 7, 2 / 7, 1 / 7], dtype=torch.float64)
    assert torch.allclose(inclusion(c, T1), pi, atol=1e-11)
    assert c.variance(T1) == pytest.approx(7.0, rel=1e-9)
    assert c.variance(T1) / 21.25 == pytest.approx(0.3294118, abs=5e-8)
    assert torch.allclose(numbers(c.encode(T1, FixedKey(0.0))), T1 / pi, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10, 20])
def test_marginals_are_exact_and_their_error_is_the_closed_form(k):
    """E C(x) = Σ π_j (x_j / π_j); A5.1: MSE = Σ x² (1 − π)/π; A5.3 with r saturated entries; Σ π = k."""
    x = torch.randn(24, generator=torch.Generator().manual_seed(k), dtype=torch.float64) ** 3
    c = tg.compressor(f"importance(k={k})")
    pi, sent = inclusion(c, x), numbers(c.encode(x, FixedKey(0.0)))
    assert float(pi.sum()) == pytest.approx(k, abs=1e-8)
    assert torch.allclose(pi * sent, x, rtol=1e-8, atol=1e-12)
    assert c.variance(x) == pytest.approx(float((x.square() * (1 - pi) / pi).sum()), rel=1e-7)
    ordered, r = x.abs().sort(descending=True).values, int((pi > 1 - 1e-9).sum())
    tail = ordered[r:]
    assert c.variance(x) == pytest.approx(float(tail.sum()) ** 2 / (k - r) - float(tail.square().sum()), rel=1e-9)


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_the_marginals_are_optimal(k):
    """KKT of A5.2: |x_j| / π_j is one constant where π_j < 1, and no larger where π_j = 1."""
    x = torch.tensor([9.0, 4, 4, 1, 1, 0.5, 0.1, 0.1, 0], dtype=torch.float64)
    t = optimal_threshold(x, k)
    pi = (x / t).clamp(max=1.0) if t else (x > 0).double()
    assert float(pi.sum()) == pytest.approx(min(k, 8))
    assert bool((x[pi == 1.0] >= t).all())


def test_equal_magnitudes_attain_omega():
    c, x = tg.compressor("importance(k=3)"), torch.full((12,), -0.3, dtype=torch.float64)
    assert c.variance(x) == pytest.approx(3 * float(x.square().sum()), rel=1e-9)
    assert c.omega(12) == pytest.approx(3, rel=1e-6)


@pytest.mark.parametrize("k", [3, 4, 5])
def test_with_room_for_every_non_zero_entry_nothing_is_random(k):
    x = torch.tensor([0.0, 1.0, 0.0, -2.0, 0.5])
    c = tg.compressor(f"importance(k={k})")
    assert c.variance(x) == 0.0
    assert all(torch.equal(c.encode(x, tg.Key(seed)).decode(), x) for seed in range(5))


def test_uncertain_entries_decode_to_plus_or_minus_one_number_and_cost_a_place_and_a_sign():
    """A5.5."""
    x = torch.randn(4000, generator=torch.Generator().manual_seed(2))
    c = tg.compressor("importance(k=400)")
    code = c.encode(x, tg.Key(0))
    certain, drawn = code.terms[-2:] if len(code.terms) == 2 else (None, code.terms[-1])
    scale = float(drawn.values.numbers()[0].abs())
    assert torch.equal(drawn.values.numbers().abs(), torch.full((drawn.values.n,), scale, dtype=torch.float64))
    assert certain is None or bool((certain.values.numbers().abs() >= scale).all())
    full = tg.compressor("importance(k=400, values=fp32)").encode(x, tg.Key(0))
    assert torch.equal(numbers(full) != 0, numbers(code) != 0)
    assert code.nbits < 0.4 * full.nbits


TIED = {
    "ones": torch.ones(1000),
    "signs": tg.Key(1).uniform(1000).sub(0.5).sign().float(),
    "two values": torch.where(tg.Key(2).uniform(1000) < 0.5, 1.0, 0.3),
    "two values or zero": torch.where(tg.Key(3).uniform(1000) < 0.1, 0.7, 0.0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("name", "bits"), [("ones", 200), ("signs", 1200), ("two values", 1300), ("two values or zero", 700)]
)
def test_ties_that_are_certain_cost_a_sign_or_less(name, bits, dtype):
    """All entries fit, and none is sent in full: 32,120 bits for the ones, before."""
    x = TIED[name].to(dtype)
    code = tg.compressor("importance(k=1000)").encode(x, tg.Key(0))
    assert code.nbits <= bits
    assert torch.equal(tg.unpack(tg.pack(code)).decode(), x)


def test_certain_entries_of_few_sizes_are_sent_as_a_table():
    """Five hundred of size 3 and 2 are certain, and the rest are not: a bit or so for each certain one, not 32."""
    x = torch.cat([torch.tensor([3.0, -2.0]).repeat(250), tg.Key(4).normal(3000).float() * 0.01])
    code = tg.compressor("importance(k=540)").encode(x, tg.Key(0))
    assert torch.equal(code.decode()[:500], x[:500])
    assert code.fields["value"] + code.fields["scale"] <= 1000


def test_an_entry_that_equals_the_threshold_is_sent_as_its_sign():
    """t = 2 at k = 6: a 4 that is certain, five of 2 that are as well, and eight of 1/4 that are not: (A5.2)."""
    x = torch.tensor([4.0, -2, 2, 2, -2, 2] + [0.25] * 8)
    threshold = optimal_threshold(x.double().abs(), 7)
    assert threshold == 2.0
    head, signs = tg.compressor("importance(k=7)").encode(x, tg.Key(0)).terms
    assert head.values.numbers().tolist() == [4.0]
    assert signs.values.n >= 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_threshold_beyond_the_dtype_is_lowered_and_the_estimate_stays_unbiased(dtype):
    """One entry expected of twelve at the top of the range would have to be sent as twelve times the largest number."""
    largest = torch.finfo(dtype).max
    x = torch.full((12,), largest / 1.5, dtype=dtype)
    c = tg.compressor("importance(k=1)")
    sent = numbers(c.encode(x, FixedKey(0.0)))
    assert torch.allclose(inclusion(c, x) * (sent / largest), x.double() / largest, rtol=1e-6)


LONG = {
    "normal": lambda z: z,
    "heavy": lambda z: z**7,
    "constant": lambda z: z.sign() * 0.3,
    "few values": lambda z: z.round(),
    "mostly zero": lambda z: torch.where(z > 1.3, z**3, 0.0),
    "one large": lambda z: torch.cat([z[:-1] * 1e-6, torch.ones(1)]),
    "subnormal": lambda z: z * 1e-40,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", LONG)
def test_a_long_vectors_threshold_is_that_of_the_sorted_one(shape, dtype):
    """A5.2, from a histogram: t, and Σ π = k, are those of a sort for every k, and 0 where all non-zero ones fit."""
    v = LONG[shape](tg.Key(5).normal(SMALL + 77)).to(dtype)
    magnitude = v.double().abs()
    for k in (1, 2, 40, 41, 700, 3000, len(v) - 1, len(v), 2.5):
        t = counted_threshold(v, k)
        assert t == pytest.approx(optimal_threshold(magnitude, k), rel=1e-12, abs=0.0)
        if t:
            assert float((magnitude / t).clamp(max=1.0).sum()) == pytest.approx(k, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_long_vectors_are_drawn_by_the_uniforms_of_the_key(dtype, disable_numba):
    """Entry j is sent where u_j t < |x_j| with u = key.uniform: on every number of threads, with numba and without."""
    x = (tg.Key(6).normal(140_000) ** 3).to(dtype)
    c, key = tg.compressor("importance(k=0.02)"), tg.Key(1)
    expected = (key.uniform(len(x)) * c._threshold(x) < x.double().abs()).nonzero().squeeze(1)
    before, messages = torch.get_num_threads(), set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            messages.add(tg.pack(c.encode(x, key)))
    finally:
        torch.set_num_threads(before)
    disable_numba()
    messages.add(tg.pack(c.encode(x, key)))
    (message,) = messages
    assert torch.equal(numbers(tg.unpack(message)).nonzero().squeeze(1), expected)
