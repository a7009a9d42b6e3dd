"""Sign with two means (A13.2), the mid-rise grid (A16.2), ECUQ (A17), and the ladders over these grids (B5, A17)."""

import math

import numpy as np
import pytest
import torch

import telegrad as tg
from cases import numbers
from telegrad.compressors.ecuq import UniformBins
from telegrad.spec import build

GENERATOR = torch.Generator().manual_seed(17)
VECTORS = [torch.randn(d, generator=GENERATOR, dtype=torch.float64) ** power for d, power in [(1, 1), (9, 3), (400, 1)]]


def sent(spec, x):
    return numbers(tg.compressor(spec).encode(x))


def relative_variance(spec, x):
    return tg.compressor(spec).variance(x) / float(x @ x)


# two means


def test_two_means_by_hand():
    """A13.2: v = (3, 1, −2, −4): (2, 2, −3, −3), error 4; without negative entries all become the mean."""
    x = torch.tensor([3.0, 1.0, -2.0, -4.0], dtype=torch.float64)
    assert sent("sign(scale=two_means)", x).tolist() == [2, 2, -3, -3]
    assert tg.compressor("sign(scale=two_means)").variance(x) == pytest.approx(4, rel=1e-12)
    assert sent("sign(scale=two_means)", x.abs()).tolist() == [2.5] * 4
    assert sent("sign(scale=two_means)", torch.tensor([0.0, -2.0, -4.0])).tolist() == [0, -3, -3]


@pytest.mark.parametrize("x", VECTORS, ids=len)
def test_two_means_are_never_worse_than_one_and_one_entry_attains_alpha(x):
    two, one = tg.compressor("sign(scale=two_means)"), tg.compressor("sign")
    assert two.variance(x) <= one.variance(x) * (1 + 1e-12) + 1e-15
    error = float((sent("sign(scale=two_means)", x) - x).square().sum())
    assert two.variance(x) == pytest.approx(error, rel=1e-9, abs=1e-15)
    one_hot = torch.zeros(7, dtype=torch.float64)
    one_hot[3] = 5.0
    assert relative_variance("sign(scale=two_means)", one_hot) == pytest.approx(1 - two.alpha(7), rel=1e-12)


def test_two_means_cost_one_bit_an_entry_and_two_scales():
    code = tg.compressor("sign(scale=two_means)").encode(torch.randn(8000, generator=GENERATOR))
    assert code.fields["scale"] == 64
    assert code.fields["value"] <= 8000 + 8
    assert code.nbits < 8000 + 64 + 150


# mid-rise


@pytest.mark.parametrize(("level", "expected"), [(1, [1, -1, 1, -1]), (2, [1, -1 / 3, 1 / 3, -1 / 3])])
def test_mid_rise_on_the_vector_of_a16(level, expected):
    x = torch.tensor([1, -0.5, 0.2, -0.05], dtype=torch.float64)
    assert sent(f"rtn(level={level}, grid=mid_rise)", x).tolist() == pytest.approx(expected, rel=1e-12)


def test_halves_go_up_on_the_mid_rise_grid():
    """A16 (iii): with level 1, 0 becomes +c; on (−1, −1/3, 1/3, 1) the middles −2/3, 0, 2/3 go up."""
    x = torch.tensor([3.0, 0.0, -3.0], dtype=torch.float64)
    assert sent("rtn(level=1, grid=mid_rise)", x).tolist() == [3, 3, -3]
    x = torch.tensor([3.0, -2.0, 0.0, 2.0], dtype=torch.float64)
    assert sent("rtn(level=2, grid=mid_rise)", x).tolist() == pytest.approx([3, -1, 1, 3])


@pytest.mark.parametrize("level", [1, 2, 3, 6, 12])
@pytest.mark.parametrize("x", VECTORS, ids=len)
def test_mid_rise_errs_by_half_a_step_at_most(x, level):
    """A16.2: points −c + δ n, n = 0 … 2^l − 1; error at most δ/2; the declared variance is the error."""
    c, count = float(x.abs().max()), 2**level - 1
    kept = sent(f"rtn(level={level}, grid=mid_rise)", x)
    assert bool(((kept - x).abs() <= c / count * (1 + 1e-9)).all())
    place = (kept + c) / (2 * c / count)
    assert torch.allclose(place, place.round(), atol=1e-6)
    assert float(kept.abs().max()) <= c
    error = float((kept - x).square().sum())
    assert tg.compressor(f"rtn(level={level}, grid=mid_rise)").variance(x) == pytest.approx(error, rel=1e-9, abs=1e-18)


@pytest.mark.parametrize(("level", "d"), [(2, 5), (3, 20), (6, 100), (1, 2)])
def test_one_entry_attains_alpha_of_the_mid_rise_grid(level, d):
    x = torch.zeros(d, dtype=torch.float64)
    x[1] = -2.0
    spec = f"rtn(level={level}, grid=mid_rise)"
    assert tg.compressor(spec).alpha(d) == pytest.approx(max(0, 1 - (d - 1) / (2**level - 1) ** 2))
    assert relative_variance(spec, x) == pytest.approx((d - 1) / (2**level - 1) ** 2, rel=1e-9)


def test_the_outermost_point_is_never_rounded_beyond_the_largest_float():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for level in range(1, 9):
            x = torch.tensor([torch.finfo(dtype).max, 1.0], dtype=dtype)
            out = tg.compressor(f"rtn(level={level}, grid=mid_rise)").encode(x).decode()
            assert float(out[0]) == pytest.approx(torch.finfo(dtype).max, rel=0.01)


# ECUQ


def test_the_bins_of_a17():
    """v = (0, 0, 0, 1, 2, 4), K = 4: Δ = 1, bins (0, 0, 0, 1, 2, 3), H = 1.7925, centres .5, 1.5, 2.5, 3.5."""
    x = torch.tensor([0.0, 0, 0, 1, 2, 4], dtype=torch.float64)
    bins = UniformBins(x)
    assert bins.grid(4).numbers(x).tolist() == [0, 0, 0, 1, 2, 3]
    assert bins.grid(4).points(np.arange(4)).tolist() == [0.5, 1.5, 2.5, 3.5]
    assert bins.entropy(4) == pytest.approx(1.7925, abs=5e-5)
    assert bins.levels_within(1.8) == 4  # ⌊2^1.8⌋ = 3 has H = 1.46; 4 is within .1 of the budget
    assert sent("ecuq(bits=1.8)", x).tolist() == [0.5, 0.5, 0.5, 1.5, 2.5, 3.5]
    assert tg.compressor("ecuq(bits=1.8)").variance(x) == pytest.approx(6 * 0.25)


@pytest.mark.parametrize("bits", [0.3, 1, 2, 2.5, 4, 6])
@pytest.mark.parametrize("power", [1, 3, 7])
def test_the_budget_is_kept_and_used(bits, power):
    """A17.1: H <= b always, and H >= b − .1 unless the search ended otherwise: no larger K tried next was within b."""
    x = torch.randn(3000, generator=GENERATOR, dtype=torch.float64) ** power
    bins = UniformBins(x)
    levels = bins.levels_within(bits)
    entropy = bins.entropy(levels)
    assert entropy <= bits
    assert levels >= max(1, math.floor(2**bits))
    assert entropy >= bits - 0.1 or bins.entropy(levels + 1) > bits or levels > 2**15
    grid = bins.grid(levels)
    kept = sent(f"ecuq(bits={bits})", x)
    assert np.allclose(kept, grid.points(grid.numbers(x).numpy()), rtol=1e-12, atol=0)
    assert bool(((kept - x).abs() <= grid.width / 2 * (1 + 1e-6)).all())


def test_the_search_ends_where_entropy_saturates():
    """A17.1, I: (0, 0, 0, 1) with b = 2 terminates at the limit on K; equal entries are sent exactly."""
    x = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    assert 2**15 < UniformBins(x).levels_within(2) <= 2**16
    assert tg.compressor("ecuq(bits=2)").variance(x) < 1e-9
    for equal in (torch.full((5,), 0.7), torch.tensor([-3.0])):
        assert torch.equal(tg.compressor("ecuq(bits=2)").encode(equal).decode(), equal)
        assert tg.compressor("ecuq(bits=2)").variance(equal) == 0.0


def test_a_message_has_the_bits_that_were_asked_for():
    """Within 2 % of the entropy plus the table of centres, d = 100,000 normal entries, three bits."""
    x = torch.randn(100_000, generator=GENERATOR)
    code = tg.compressor("ecuq(bits=3)").encode(x)
    bins = UniformBins(x)
    entropy = bins.entropy(bins.levels_within(3))
    assert 2.9 <= entropy <= 3
    assert code.nbits <= 1.02 * entropy * 100_000 + 32 * code.terms[0].values.table.numel()


def test_budgets_that_are_none_are_refused():
    for text in ("ecuq(bits=0)", "ecuq(bits=17)", "rtn(level=3, grid=diagonal)", "sign(scale=median)"):
        with pytest.raises(tg.SpecError, match="for example"):
            tg.compressor(text)


@pytest.mark.parametrize(
    "x",
    [torch.randn(70_000, generator=GENERATOR) ** 5, torch.randn(150_000, generator=GENERATOR).bfloat16()],
    ids=["fifth powers", "bfloat16"],
)
def test_the_search_takes_the_same_bins_in_every_form_and_on_any_number_of_threads(x, disable_numba, threads):
    """Of fifth powers the search looks at tens of thousands of bins, whose entropy is a long sum."""

    def found():
        specs = ("ecuq(bits=5)", "mlmc(ecuq)", "mlmc(rtn)", "mlmc(rtn, probabilities=cost)")
        messages = [tg.pack(tg.compressor(spec).encode(x, tg.Key(1))) for spec in specs]
        return [UniformBins(x).entropy(levels) for levels in (3, 5000, 65536)], messages

    first = found()
    for count in (2, 3):
        threads(count)
        assert found() == first
    disable_numba()
    assert found() == first


# the ladders


@pytest.mark.parametrize(
    "ladder", ["rtn(grids=5, grid=mid_rise)", "rtn(grids=5)", "ecuq(budgets=4)", "ecuq(budgets=1)"]
)
@pytest.mark.parametrize("law", ["adaptive", "fixed", "cost"])
@pytest.mark.parametrize("x", [*VECTORS, torch.full((6,), -0.4, dtype=torch.float64)], ids=len)
def test_the_levels_average_to_the_vector(ladder, law, x):
    """B1.2 by enumeration: Σ p_l estimate_l = v, and Σ p_l ‖estimate_l − v‖² = variance, within omega."""
    c = tg.compressor(f"mlmc({ladder}, probabilities={law})")
    law_of_levels = list(c.enumerate_levels(x))
    mean = sum(p * estimate for p, estimate in law_of_levels)
    error = sum(p * float((estimate - x).square().sum()) for p, estimate in law_of_levels)
    assert torch.allclose(mean, x, rtol=1e-9, atol=1e-12)
    assert c.variance(x) == pytest.approx(error, rel=1e-8, abs=1e-10 * float(x @ x))
    assert c.variance(x) <= c.omega(len(x)) * float(x @ x) * (1 + 1e-9)


def test_the_first_mid_rise_level_is_dear():
    """B5.3: Δ_1 = m √d always, so mid-tread is the better ladder for peaked vectors."""
    x = torch.randn(300, generator=GENERATOR, dtype=torch.float64) ** 5
    norms = build("rtn(grids=6, grid=mid_rise)", "ladder").levels(x).norms()
    assert float(norms[0]) == pytest.approx(float(x.abs().max()) * math.sqrt(300))
    assert relative_variance("mlmc(rtn(grid=mid_rise))", x) > 5 * relative_variance("mlmc(rtn)", x)


def test_the_levels_of_the_ecuq_ladder_are_ecuq():
    x = VECTORS[2]
    levels = build("ecuq(budgets=3)", "ladder").levels(x)
    total = torch.zeros(len(x), dtype=torch.float64)
    for level in (1, 2, 3):
        for term in levels.residual(level):
            term.add_to(total, 1.0)
        assert torch.allclose(total, sent(f"ecuq(bits={level})", x), rtol=1e-9, atol=1e-12)
    for term in levels.residual(4):
        term.add_to(total, 1.0)
    assert torch.allclose(total, x, rtol=1e-12, atol=1e-15)
