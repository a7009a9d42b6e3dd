"""The refinement ladder: exact for every vector, and as good as its trellis codes are said to be."""

import itertools
import math

import pytest
import torch

import telegrad as tg
from telegrad.kernels.trellis.codes import trellis_omega
from telegrad.spec import build

NORMAL = tg.Key(5).normal(70_000)
HEAVY = NORMAL**5


def residuals(levels):
    """r_1 … r_L, float64."""
    found = []
    for level in range(1, len(levels.fixed_probabilities()) + 1):
        out = torch.zeros(levels.d, dtype=torch.float64)
        for term in levels.residual(level):
            term.add_to(out, 1.0)
        found.append(out)
    return found


@pytest.mark.parametrize("d", [1, 3, 63, 64, 200, 5000, 70_000])
def test_residuals_add_up_and_each_is_orthogonal_to_what_it_leaves(d):
    """B1.1, and Σ ‖r_l‖² = ‖v‖² by Pythagoras: S is the projection's."""
    v = HEAVY[:d]
    levels = build("refinement(bits=0.7, refinements=3)", "ladder").levels(v)
    found = residuals(levels)
    assert float((sum(found) - v).norm()) <= 1e-13 * float(v.norm())
    for level in range(3):
        left = sum(found[level + 1 :])
        assert abs(float(found[level] @ left)) <= 1e-12 * float(v.square().sum())
    squares = torch.stack([one.square().sum() for one in found])
    assert torch.allclose(levels.energies(), squares, rtol=1e-9, atol=1e-15 * float(v.square().sum()))
    assert float(squares.sum()) == pytest.approx(float(v.square().sum()), rel=1e-12)


@pytest.mark.parametrize("v", [NORMAL, HEAVY], ids=["normal", "heavy"])
@pytest.mark.parametrize(("bits", "states"), [(0.5, 8), (1.0, 8), (1.0, 256), (2.0, 8)])
def test_norms_are_those_of_normal_numbers_whatever_the_vector_is(v, bits, states):
    """Δ_l² = D^(l−1) (1 − D) ‖v‖²; the last D^L (1 + ω of rounding to 1.65 deviations). Within 3 % over 70,000 entries:
    the residual of a coarse quantiser is not quite normal, and blocks are finite.
    """
    levels = build(f"refinement(bits={bits}, states={states})", "ladder").levels(v)
    omega = float(trellis_omega(states, bits))
    d = omega / (1 + omega)
    expected = [(1 - d), d * (1 - d), d * d * 1.453]
    moments = levels.second_moments() / v.square().sum()
    assert moments.tolist() == pytest.approx(expected, rel=0.03)
    assert levels.norms().square().tolist() == pytest.approx(levels.second_moments().tolist(), rel=1e-12)
    ladder = levels.ladder
    assert (ladder.law().square() / ladder.law()[0] ** 2).tolist() == pytest.approx(
        [one / expected[0] for one in expected], rel=1e-9
    )


@pytest.mark.parametrize("v", [NORMAL, HEAVY], ids=["normal", "heavy"])
def test_omega_is_predicted_by_the_distortion_of_the_code(v):
    """ω = (ΣΔ)² − 1 of the predicted norms, within 3 %."""
    norms = build("refinement(bits=1)", "ladder").predicted_moments().sqrt()
    variance = tg.compressor("mlmc(refinement(bits=1))").variance(v)
    assert variance / float(v.square().sum()) == pytest.approx(float(norms.sum()) ** 2 - 1, rel=0.03)


@pytest.mark.parametrize("sampling", ["independent", "poisson", "systematic", "coupled"])
@pytest.mark.parametrize("base", [0, 1])
def test_variance_is_that_of_exact_enumeration_over_draws_and_rounding(sampling, base):
    """Σ p ‖estimate − v‖² over all draws, with what rounding adds, is the declared variance."""
    v = HEAVY[:90]
    compressor = tg.compressor(f"mlmc(refinement(bits=1), base={base}, sampling={sampling}, draws=2)")
    levels = compressor.ladder.levels(v)
    parts, pi = residuals(levels), compressor._inclusions(v, levels)
    rounding = float((levels.second_moments() - levels.energies())[-1])
    count, law = len(parts) - base, []
    if sampling == "independent":
        p = (pi[base:] / 2).tolist()
        pairs = itertools.product(range(count), repeat=2)
        law = [(p[a] * p[b], [(a == k) + (b == k) for k in range(count)]) for a, b in pairs]
    elif sampling == "poisson":
        for draw in itertools.product((0, 1), repeat=count):
            chances = zip(draw, pi[base:].tolist(), strict=True)
            law.append((math.prod(one if there else 1 - one for there, one in chances), draw))
    else:
        n = 20_000  # strata of the one uniform number
        for u in (torch.arange(n) + 0.5).div(n).tolist():
            if sampling == "coupled":
                draw = [int(u < one) for one in pi[base:].tolist()]
            else:
                ends = [0.0, *pi[base:].cumsum(0).tolist()]
                draw = [math.floor(b - u) - math.floor(a - u) for a, b in itertools.pairwise(ends)]
            law.append((1 / n, draw))
    expected = 0.0
    for chance, draw in law:
        weights = [1.0] * base + [k / float(one) for k, one in zip(draw, pi[base:], strict=True)]
        estimate = sum(w * part for w, part in zip(weights, parts, strict=True))
        expected += chance * (float((estimate - v).square().sum()) + weights[-1] ** 2 * rounding)
    assert compressor.variance(v) == pytest.approx(
        expected, rel=1e-9 if sampling in ("independent", "poisson") else 1e-3
    )


def test_where_all_levels_are_always_sent_only_rounding_is_left():
    v = HEAVY[:300]
    compressor = tg.compressor("mlmc(refinement(bits=2), base=3)")
    levels = compressor.ladder.levels(v)
    rounding = float((levels.second_moments() - levels.energies())[-1])
    assert rounding > 0
    assert compressor.variance(v) == pytest.approx(rounding, rel=1e-9)


def test_the_last_level_is_rounded_without_bias():
    """4,000 roundings of what is left of 20 entries: every coordinate's mean within 5 standard errors."""
    levels = build("refinement(bits=1)", "ladder").levels(HEAVY[:20])
    ((last,), exact) = levels.residual(3), residuals(levels)[-1]
    sent = torch.stack([last.values.rounded(torch.float64, tg.Key(seed)).numbers() for seed in range(4000)])
    error = sent.std(0) / math.sqrt(len(sent))
    assert float(error.min()) > 0
    assert bool(((sent.mean(0) - exact).abs() <= 5 * error).all())


@pytest.mark.parametrize(("level", "bits"), [(1, 1.0), (2, 1.0), (3, 1.594)])
def test_a_message_has_the_bits_that_its_level_is_said_to_cost(level, bits):
    v = NORMAL.float()
    compressor = tg.compressor("mlmc(refinement(bits=1))")
    codes = (compressor.encode(v, tg.Key(seed)) for seed in range(60))
    code = next(one for one in codes if one.level == level)
    assert code.nbits == pytest.approx(float(compressor.ladder.levels(v).costs()[level - 1]), rel=0.02)
    assert code.nbits / len(v) == pytest.approx(bits, rel=0.03)


@pytest.mark.parametrize("wrong", ["bits=0.01", "bits=7", "bits=1, refinements=0", "bits=1, refinements=25"])
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(tg.SpecError, match="allowed"):
        tg.compressor(f"mlmc(refinement({wrong}))")
