"""QSGD, scaled sign, bit and mantissa truncation, rounding to nearest, identity: the numbers of A1, A7, A13 to A16."""

import math

import pytest
import torch

import telegrad as tg
from cases import FixedKey, numbers

BELOW_ONE = 1 - 2.0**-53
GENERATOR = torch.Generator().manual_seed(3)
VECTORS = [torch.randn(d, generator=GENERATOR, dtype=torch.float64) ** power for d, power in [(1, 1), (9, 3), (50, 1)]]


def sent(spec, x, u=0.5):
    return numbers(tg.compressor(spec).encode(x, FixedKey(u)))


def error(spec, x):
    return float((sent(spec, x) - x.double()).square().sum())


def relative_variance(spec, x):
    return tg.compressor(spec).variance(x) / float(x.double().square().sum())


def test_identity_sends_everything_at_full_price():
    """A1.1."""
    x = torch.randn(100, generator=GENERATOR)
    code = tg.compressor("identity").encode(x)
    assert torch.equal(code.decode(), x)
    assert code.fields["value"] == 3200
    assert code.nbits <= 3200 + 13 * 8


# QSGD


def test_qsgd_on_three_four():
    """A7: s = 1: sent with probability (.6, .8) as ±5, MSE 10, ω = .4."""
    x = torch.tensor([3.0, -4.0], dtype=torch.float64)
    assert tg.compressor("qsgd(levels=1)").variance(x) == pytest.approx(10, rel=1e-12)
    assert relative_variance("qsgd(levels=1)", x) == pytest.approx(0.4, rel=1e-12)
    for u, expected in [(0.0, [5, -5]), (0.599, [5, -5]), (0.601, [0, -5]), (0.799, [0, -5]), (0.801, [0, 0])]:
        assert sent("qsgd(levels=1)", x, u).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("levels", [1, 2, 4, 100])
@pytest.mark.parametrize("x", VECTORS, ids=len)
def test_qsgd_is_a_two_point_law_on_the_grid_of_the_norm(x, levels):
    """A7.1, A7.2: neighbours on the grid of step ‖x‖/s with mean x_j; MSE = (‖x‖²/s²) Σ f (1 − f)."""
    spec, step = f"qsgd(levels={levels})", float(torch.linalg.vector_norm(x)) / levels
    up, down = sent(spec, x, 0.0), sent(spec, x, BELOW_ONE)
    assert torch.allclose(up / step, (up / step).round(), atol=1e-9)
    assert bool((down.abs() <= x.abs() * (1 + 1e-12)).all())
    assert bool((up.abs() >= x.abs() * (1 - 1e-12)).all())
    assert bool(((up - down).abs() <= step * (1 + 1e-12)).all())
    share = torch.where(up == down, 0.0, (x - down) / (up - down)).clamp(0, 1)
    for u in (share * (1 - 1e-9)).tolist():
        assert torch.equal(sent(spec, x, u)[share > u + 1e-12], up[share > u + 1e-12])
    for u in (share + 1e-9).clamp(max=BELOW_ONE).tolist():
        assert torch.equal(sent(spec, x, u)[share < u - 1e-12], down[share < u - 1e-12])
    mse = float((share * (up - x).square() + (1 - share) * (down - x).square()).sum())
    assert tg.compressor(spec).variance(x) == pytest.approx(mse, rel=1e-9, abs=1e-18)


def test_qsgd_variance_of_20000_equal_pieces():
    """A vector of 20,000 copies of (5, −2, 1, 0): N independent errors from one key, at real uniforms.

    Null: mean and mean squared error of a piece are the declared ones; z = 5, with the sample's own standard error.
    """
    piece, copies = torch.tensor([5.0, -2.0, 1.0, 0.0], dtype=torch.float64), 20_000
    x = piece.repeat(copies)
    c = tg.compressor("qsgd(levels=300)")
    estimates = numbers(c.encode(x, tg.Key(4))).view(copies, 4)
    squared = (estimates - piece).square().sum(1)
    assert abs(float(squared.mean()) - c.variance(x) / copies) <= 5 * float(squared.std()) / copies**0.5
    bias = (estimates.mean(0) - piece).abs()
    assert bool((bias <= 5 * estimates.std(0) / copies**0.5).all())


def test_the_bound_of_qsgd_is_attained_by_equal_entries():
    """Within A7.2's min(d/s², √d/s): for s = 1 and d equal entries f = 1/√d: ω = √d − 1; d/(4s²) else."""
    x = torch.ones(100)
    assert relative_variance("qsgd(levels=1)", x) == pytest.approx(9.0, rel=1e-9)
    assert tg.compressor("qsgd(levels=1)").omega(100) == 9.0
    assert tg.compressor("qsgd(levels=20)").omega(100) == 1 / 16
    # f = 1/2 everywhere: d/(4 s²), the most that d rounding errors can be.
    assert tg.compressor("qsgd(levels=105)").omega(100) == pytest.approx(100 / (4 * 105**2), rel=1e-12)
    assert relative_variance("qsgd(levels=105)", x) == pytest.approx(100 / (4 * 105**2), rel=1e-9)


# scaled sign


def test_scaled_sign_has_the_error_of_a13_1():
    """A13: v = (3, −1, 2): error 2; v = (3, 0, 2): ‖v‖² − ‖v‖₁²/d with sign(0) = +1."""
    assert sent("sign", torch.tensor([3.0, -1.0, 2.0])).tolist() == [2.0, -2.0, 2.0]
    assert sent("sign", torch.tensor([3.0, 0.0, -3.0])).tolist() == [2.0, 2.0, -2.0]
    for x, expected in [([3.0, -1.0, 2.0], 2.0), ([3.0, 0.0, 2.0], 13 - 25 / 3)]:
        v = torch.tensor(x, dtype=torch.float64)
        assert tg.compressor("sign").variance(v) == pytest.approx(expected, rel=1e-12)
        assert error("sign", v) == pytest.approx(expected, rel=1e-12)


def test_scaled_sign_is_worst_on_one_entry_and_exact_on_equal_ones():
    """A13.1: α = ‖v‖₁²/(d ‖v‖²) lies between 1/d and 1."""
    one_hot = torch.tensor([0.0, -3.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert relative_variance("sign", one_hot) == pytest.approx(1 - tg.compressor("sign").alpha(5), rel=1e-12)
    assert relative_variance("sign", torch.tensor([0.5, -0.5, 0.5])) == pytest.approx(0.0, abs=1e-15)


def test_scaled_sign_costs_one_bit_an_entry():
    code = tg.compressor("sign").encode(torch.randn(8000, generator=GENERATOR))
    assert code.fields["sign"] == 8000
    assert code.fields["scale"] == 32
    assert code.nbits < 8000 + 200


# truncation


@pytest.mark.parametrize("x", [*VECTORS, torch.tensor([1.5, -1.0, 0.5, 2.0], dtype=torch.float64)], ids=len)
@pytest.mark.parametrize("level", [1, 2, 3, 8, 30])
def test_fixed_point_keeps_the_first_bits_towards_zero(x, level):
    """A14.1: multiples of m 2^−l below |x_j| by less than m 2^−l, and the largest entry becomes m (1 − 2^−l)."""
    kept, step = sent(f"fixed_point(level={level})", x), float(x.abs().max()) * 2.0**-level
    missing = x.abs() - kept.abs()
    assert bool((kept * x >= 0).all())
    assert bool((missing >= -1e-15).all())
    assert bool((missing <= step * (1 + 1e-6)).all())
    assert torch.allclose(kept / step, (kept / step).round(), atol=1e-6)
    assert float(kept.abs().max()) == pytest.approx(float(x.abs().max()) * (1 - 2.0**-level))
    assert tg.compressor(f"fixed_point(level={level})").variance(x) == pytest.approx(
        float(missing.square().sum()), rel=1e-9
    )


def test_bits_of_the_example_of_a14():
    """v = (1.5, −1, .5, 2) over m = 2: .75 = .11, .5 = .1, .25 = .01, and 1 = .111… in binary."""
    x = torch.tensor([1.5, -1.0, 0.5, 2.0])
    assert sent("fixed_point(level=1)", x).tolist() == [1.0, -1.0, 0.0, 1.0]
    assert sent("fixed_point(level=2)", x).tolist() == [1.5, -1.0, 0.5, 1.5]
    assert sent("fixed_point(level=3)", x).tolist() == [1.5, -1.0, 0.5, 1.75]


@pytest.mark.parametrize("level", [0, 1, 2, 5])
def test_floating_point_attains_the_supremum_of_its_error(level):
    """A15.2: sup (error/t)² = (1 + 2^l)^−2, approached just below a step; scanned over one binade and over signs."""
    t = torch.cat([torch.linspace(1, 2, 2001, dtype=torch.float64), -(2.0**-level) - 1 + 1e-9 * torch.ones(1)])
    kept = sent(f"floating_point(level={level})", t)
    assert bool((kept.abs() <= t.abs()).all())
    worst = float(((kept - t) / t).square().max())
    supremum = 1 - tg.compressor(f"floating_point(level={level})").alpha(1)
    assert supremum == pytest.approx((1 + 2.0**level) ** -2, rel=1e-12)
    assert worst <= supremum * (1 + 1e-12)
    just_below = torch.tensor([1 + 2.0**-level - 1e-12], dtype=torch.float64)
    assert relative_variance(f"floating_point(level={level})", just_below) == pytest.approx(supremum, rel=1e-9)


@pytest.mark.parametrize("level", [0, 3, 7, 23, 52])
def test_floating_point_keeps_sign_exponent_and_leading_mantissa_bits(level):
    """A15.1, over many exponents and both signs."""
    x = torch.cat([v * 2.0**shift for v in VECTORS for shift in (-300, -20, 0, 7, 300)])
    for kept, number in zip(sent(f"floating_point(level={level})", x).tolist(), x.tolist(), strict=True):
        fraction, exponent = math.frexp(abs(number))
        cut = math.ldexp(math.floor(math.ldexp(fraction, level + 1)), exponent - level - 1)
        assert kept == math.copysign(cut, number)


def test_floating_point_sends_all_of_a_short_mantissa():
    x = torch.randn(50, generator=GENERATOR).bfloat16()
    assert torch.equal(tg.compressor("floating_point(level=30)").encode(x).decode(), x)
    assert tg.compressor("floating_point(level=7)").variance(x) == 0.0


@pytest.mark.parametrize(
    ("level", "expected"),
    [(1, [0, 0, 0, 0]), (2, [2 / 3, -2 / 3, 0, 0]), (3, [6 / 7, -4 / 7, 2 / 7, 0])],
)
def test_rtn_on_the_vector_of_a16(level, expected):
    """A16's test, mid-tread grid."""
    x = torch.tensor([1, -0.5, 0.2, -0.05], dtype=torch.float64)
    assert sent(f"rtn(level={level})", x).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("level", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("x", VECTORS, ids=len)
def test_rtn_errs_by_half_a_step_at_most(x, level):
    """A16.1: the nearest of 2^l − 1 points; error at most δ/2, and never more than the entry itself."""
    step = 2 * float(x.abs().max()) / (2**level - 1)
    kept = sent(f"rtn(level={level})", x)
    assert bool(((kept - x).abs() <= x.abs().clamp(max=step / 2) * (1 + 1e-9)).all())
    assert torch.allclose(kept / step, (kept / step).round(), atol=1e-9)
    assert len(kept.unique()) <= 2**level - 1
    assert tg.compressor(f"rtn(level={level})").variance(x) == pytest.approx(
        float((kept - x).square().sum()), rel=1e-9, abs=1e-18
    )


@pytest.mark.parametrize("d", [1, 2, 17])
@pytest.mark.parametrize("level", [2, 3, 6])
def test_rtn_and_fixed_point_attain_their_alpha(d, level):
    """A16: one entry c and d − 1 of half a step; A14: one entry m and d − 1 just below the first bit plane left out."""
    steps = 2**level - 1
    x = torch.ones(d, dtype=torch.float64)
    x[0] = steps
    assert relative_variance(f"rtn(level={level})", x) == pytest.approx(
        1 - tg.compressor(f"rtn(level={level})").alpha(d), rel=1e-9
    )
    x = torch.full((d,), 2.0**-level * (1 - 1e-12), dtype=torch.float64)
    x[0] = 1.0
    assert relative_variance(f"fixed_point(level={level})", x) == pytest.approx(
        1 - tg.compressor(f"fixed_point(level={level})").alpha(d), rel=1e-9
    )


@pytest.mark.parametrize("spec", ["fixed_point(level=4)", "rtn(level=4)", "floating_point(level=2)", "sign"])
def test_variance_of_a_deterministic_compressor_is_its_error_in_float64_whatever_the_default_dtype(spec):
    """To 1e-12: forming grid points in float32 would leave 1e-8."""
    for x in VECTORS:
        assert tg.compressor(spec).variance(x) == pytest.approx(error(spec, x), rel=1e-10, abs=1e-20)
