"""QSGD's norms and buckets, TernGrad, standard and natural dithering, natural compression: A7, A9 to A12."""

import math

import pytest
import torch

import telegrad as tg
from cases import FixedKey, numbers
from telegrad.errors import WireError

BELOW_ONE = 1 - 2.0**-53
GENERATOR = torch.Generator().manual_seed(12)
VECTORS = [
    torch.randn(d, generator=GENERATOR, dtype=torch.float64) ** power * scale
    for d, power, scale in [(1, 1, 1.0), (7, 3, 1e-9), (40, 1, 1.0), (300, 5, 1e6)]
]


def compressor(spec):
    return tg.compressor(spec)


def relative_variance(spec, x):
    return compressor(spec).variance(x) / float(x.double().square().sum())


def sent(spec, x, u):
    return numbers(compressor(spec).encode(x, FixedKey(u)))


def two_point_error(spec, x):
    """Σ (x − low)(high − x) over the neighbours that the smallest and the largest uniform give: the variance of an
    unbiased two-point law, and by the law's share of `high` the error if it is not what the formulas say.
    """
    first, second = sent(spec, x, 0.0), sent(spec, x, BELOW_ONE)
    assert bool(((first - x) * (x - second) >= -1e-9 * x.square()).all())
    share = torch.where(first == second, 0.0, (x - second) / (first - second)).clamp(0, 1)
    for j in range(0, len(x), max(1, len(x) // 12)):  # just below its share an entry goes to `first`, just above not
        if 1e-6 < float(share[j]) < 1 - 1e-6:
            assert float(sent(spec, x, float(share[j]) - 1e-7)[j]) == float(first[j])
            assert float(sent(spec, x, float(share[j]) + 1e-7)[j]) == float(second[j])
    return float((share * (first - x).square() + (1 - share) * (second - x).square()).sum())


ALL = [
    "qsgd(levels=3, norm=inf)",
    "qsgd(levels=3, bucket=16)",
    "qsgd(levels=1, norm=inf, bucket=7)",
    "dithering(norm=1, levels=5)",
    "dithering(norm=2, levels=2)",
    "dithering(norm=3.5, levels=3)",
    "dithering(norm=inf, levels=1)",
    "terngrad",
    "natural",
    "natural_dithering(levels=1)",
    "natural_dithering(levels=3, norm=1)",
    "natural_dithering(levels=5, norm=inf)",
    "natural_dithering(levels=8)",
]


@pytest.mark.parametrize("x", VECTORS, ids=len)
@pytest.mark.parametrize("spec", ALL)
def test_each_entry_has_two_values_around_it_with_mean_itself_and_the_declared_variance(spec, x):
    """A7.1, A9.1, A10.1, A11.1, A12.1, entry by entry."""
    assert compressor(spec).variance(x) == pytest.approx(two_point_error(spec, x), rel=1e-9, abs=1e-12 * float(x @ x))


# Hand numbers


def test_terngrad_and_infinity_dithering_on_one_two_four():
    """A9, A10: v = (1, 2, 4), s = 1: MSE = 4 · 7 − 21 = 7; probabilities (1/4, 1/2, 1)."""
    x = torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)
    for spec in ("terngrad", "dithering(norm=inf, levels=1)", "qsgd(levels=1, norm=inf)"):
        assert compressor(spec).variance(x) == pytest.approx(7, rel=1e-12)
        for u, expected in [(0.0, [4, -4, 4]), (0.249, [4, -4, 4]), (0.251, [0, -4, 4]), (0.501, [0, 0, 4])]:
            assert sent(spec, x, u).tolist() == expected


def test_terngrad_and_its_relatives_are_one_law():
    """A9.1: p = 2 is QSGD, p = ∞ with s = 1 is TernGrad; A12: one level of natural dithering is standard dithering."""
    x, key = VECTORS[2], tg.Key(3)
    for first, second in [
        ("dithering(norm=2, levels=6)", "qsgd(levels=6)"),
        ("dithering(norm=inf, levels=1)", "terngrad"),
        ("natural_dithering(levels=1)", "qsgd(levels=1)"),
        ("natural_dithering(levels=2, norm=inf)", "dithering(levels=2, norm=inf)"),
    ]:
        left, right = (numbers(compressor(spec).encode(x, key)) for spec in (first, second))
        assert torch.allclose(left, right, rtol=1e-12)
        assert compressor(first).variance(x) == pytest.approx(compressor(second).variance(x), rel=1e-9)


def test_natural_compression_by_hand():
    """A11: 2.5 → 2 (3/4) or 4 (1/4), MSE .75; .1 = 2^−4 · 1.6, so f = .6."""
    x = torch.tensor([2.5, -0.1], dtype=torch.float64)
    assert compressor("natural").variance(x[:1]) == pytest.approx(0.75, rel=1e-12)
    for u, expected in [(0.249, [4, -0.125]), (0.251, [2, -0.125]), (0.599, [2, -0.125]), (0.601, [2, -0.0625])]:
        assert sent("natural", x, u).tolist() == expected
    powers = torch.tensor([2.0**e for e in range(-40, 40)], dtype=torch.float64)
    assert torch.equal(sent("natural", powers, 0.0), powers)


# Worst cases


@pytest.mark.parametrize("d", [2, 4, 9, 1000])
@pytest.mark.parametrize("levels", [1, 2, 5])
def test_one_entry_and_equal_others_attain_omega_of_the_infinity_norm(d, levels):
    """A10.2 for s = 1: ω = (√d − 1)/2 at (1, a, …, a), a = 1/(1 + √d); d = 4: (1, 1/3, 1/3, 1/3), ω = .5."""
    x = torch.full((d,), 1 / (levels + math.sqrt(levels**2 + d - 1)), dtype=torch.float64)
    x[0] = 1.0
    spec = f"dithering(norm=inf, levels={levels})"
    assert relative_variance(spec, x) == pytest.approx(compressor(spec).omega(d), rel=1e-9)
    if levels == 1:
        assert compressor("terngrad").omega(d) == pytest.approx((math.sqrt(d) - 1) / 2, rel=1e-12)
        assert relative_variance("terngrad", x) == pytest.approx((math.sqrt(d) - 1) / 2, rel=1e-9)
        if d == 4:
            assert relative_variance("terngrad", x) == pytest.approx(0.5, rel=1e-12)
            assert x.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize(("norm", "levels", "d"), [(1, 1, 5), (1, 3, 10), (1.5, 2, 50), (2, 1, 9), (2, 3, 100)])
def test_equal_entries_attain_omega_where_levels_are_few(norm, levels, d):
    spec, x = f"dithering(norm={norm}, levels={levels})", torch.full((d,), -0.3, dtype=torch.float64)
    assert d ** (2 / norm) / levels**2 >= 4
    assert relative_variance(spec, x) == pytest.approx(compressor(spec).omega(d), rel=1e-9)


def test_a_third_attains_omega_of_natural_compression():
    """A11.2: f = 1/3 gives exactly t²/8."""
    x = torch.tensor([4 / 3, -8 / 3, 2.0**-30 / 3], dtype=torch.float64)
    assert relative_variance("natural", x) == pytest.approx(compressor("natural").omega(3), rel=1e-9)


@pytest.mark.parametrize(("levels", "worst"), [(1, 9.0), (2, 4.0), (4, 0.46), (8, 0.126)])
def test_natural_dithering_within_the_table_of_a12(levels, worst):
    """d = 100, p = 2: the true maxima 9, 4.00, .46, .126; omega lies between them and A12.2."""
    spec = f"natural_dithering(levels={levels})"
    reach = 100**0.5 * 2.0 ** (1 - levels)
    paper = 0.125 + reach * min(1.0, reach)
    omega = compressor(spec).omega(100)
    assert worst - 0.005 <= omega <= min(paper, worst + 0.02)
    if levels <= 2:
        assert relative_variance(spec, torch.ones(100)) == pytest.approx(omega, rel=1e-9)


@pytest.mark.parametrize("spec", [spec for spec in ALL if spec not in ("natural", "terngrad")])
def test_omega_lies_within_the_bounds_of_the_papers(spec):
    """A7.2: min(d/s², √d/s); A12.2 with r = min(p, 2); and no random vector exceeds the smaller one."""
    c = compressor(spec)
    p = {"l2": 2.0, "inf": math.inf}.get(getattr(c, "norm", "l2")) or float(c.norm)
    for d in (1, 2, 10, 300):
        block = min(d, getattr(c, "bucket", None) or d)
        if spec.startswith("natural"):
            reach = block ** (1 / min(p, 2)) * 2.0 ** (1 - c.levels)
            paper = 0.125 + reach * min(1.0, reach)
        else:
            reach = block ** (1 / min(p, 2)) / c.levels
            paper = min(reach, reach**2)
        assert c.omega(d) <= paper * (1 + 1e-12)
        for power in (0.1, 1, 4):
            x = torch.randn(d, generator=GENERATOR, dtype=torch.float64)
            x = x.sign() * x.abs() ** power
            assert relative_variance(spec, x) <= c.omega(d) * (1 + 1e-9) + 1e-12


# Clip


def test_clipping_is_declared_as_a_bias():
    """A10: the original clip; the mean of what is sent is the clipped vector."""
    x = torch.tensor([1.0, 1.0, -1.0, 10.0], dtype=torch.float64)
    c = compressor("terngrad(clip=1)")
    limit = math.sqrt(103 / 4)
    assert not c.unbiased
    assert c.omega(4) == math.inf
    assert c.alpha(4) == 0.0
    assert sent("terngrad(clip=1)", x, 0.0).tolist() == pytest.approx([limit, limit, -limit, limit])
    expected = (10 - limit) ** 2 + limit * (3 + limit) - 3 - limit**2
    assert c.variance(x) == pytest.approx(expected, rel=1e-12)
    assert sent("terngrad(clip=2.5)", x, 0.0).tolist() == [10, 10, -10, 10]


# Buckets on the wire


def test_a_bucket_has_its_own_norm_and_zeros_stay():
    """Buckets (3, 4), (0, 0), (5): step 5, none, 5; MSE = 10 (A7's example) + 0 + 0."""
    x = torch.tensor([3.0, -4.0, 0.0, 0.0, 5.0])
    spec = "qsgd(levels=1, bucket=2)"
    assert compressor(spec).variance(x) == pytest.approx(10, rel=1e-9)
    assert sent(spec, x, 0.7).tolist() == [0, -5, 0, 0, 5]
    code = compressor(spec).encode(x, FixedKey(0.7))
    assert code.fields["scale"] == 3 * 32
    assert code.fields["index"] == 0


def test_buckets_cost_their_scales_and_the_entropy_of_their_symbols():
    """A8: within 2 % of the empirical entropy of the symbols, d = 200,000 normal entries."""
    x = torch.randn(200_000, generator=GENERATOR)
    code = compressor("qsgd(levels=4, bucket=512)").encode(x, tg.Key(0))
    symbols = code.terms[0].values.symbol
    _, counts = symbols.unique(return_counts=True)
    share = counts.double() / len(x)
    entropy = -float((share * share.log2()).sum()) * len(x)
    scales = -(-200_000 // 512) * 32
    assert code.fields["scale"] == scales
    assert code.nbits <= 1.02 * (entropy + scales)
    assert tg.pack(code) == tg.pack(tg.unpack(tg.pack(code)))


def test_a_bucket_as_long_as_the_vector_is_no_bucket():
    x = VECTORS[2]
    for bucket in (40, 41, 2**40):
        left = numbers(compressor(f"qsgd(levels=4, bucket={bucket})").encode(x, tg.Key(1)))
        assert torch.allclose(left, numbers(compressor("qsgd(levels=4)").encode(x, tg.Key(1))), rtol=1e-12)


def test_buckets_without_entries_are_refused():
    code = compressor("qsgd(levels=1, bucket=3)").encode(torch.ones(5), tg.Key(0))
    values = code.terms[0].values.write(torch.float32)
    from telegrad.wire.bits import Reader
    from telegrad.wire.values import Bucketed

    assert Bucketed.read(Reader(values), 5, torch.float32).bucket == 3
    with pytest.raises(WireError, match="without entries"):
        Bucketed.read(Reader(b"\0" + values[1:]), 5, torch.float32)


# The ends of the range


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_natural_compression_sends_the_top_binade_as_it_is(dtype):
    """There is no power of two above it to go to; below it, the largest power is."""
    info = torch.finfo(dtype)
    x = torch.tensor([info.max, -info.max / 1.5, info.max / 4, 3 * info.smallest_normal * info.eps], dtype=dtype)
    for seed in range(10):
        out = compressor("natural").encode(x, tg.Key(seed)).decode()
        assert torch.equal(out[:2], x[:2])
        assert float(out[2].log2()) == round(float(out[2].log2()))
        assert float(out[3] / (info.smallest_normal * info.eps)) in (2.0, 4.0)


@pytest.mark.parametrize(
    "text",
    [
        *("qsgd(levels=0)", "qsgd(bucket=0)", "qsgd(norm=l3)", "dithering(norm=0.5)", "terngrad(clip=0)"),
        *("natural_dithering(levels=31)", "natural_dithering(norm=0)"),
    ],
)
def test_unfit_arguments_are_refused(text):
    with pytest.raises(tg.SpecError, match="for example"):
        compressor(text)


@pytest.mark.parametrize("levels", [16, 256, 4096, 2**24])
@pytest.mark.parametrize("d", [512, 10_000])
def test_many_levels_of_tied_entries_cost_about_their_entropy(levels, d):
    x = tg.Key(2).normal(d).sign().float() * torch.where(tg.Key(3).normal(d) > 0, 1.0, 3.0)
    compressor = tg.compressor(f"qsgd(levels={levels})")
    code = compressor.encode(x, tg.Key(4))
    symbols = (code.decode().double() * levels / x.double().norm()).round()
    _, counts = symbols.unique(return_counts=True)
    entropy = -float((counts * (counts / d).log2()).sum())
    assert code.nbits <= 1.03 * entropy + 8 * 80
