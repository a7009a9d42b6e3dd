"""Ladders that are made of other things: singular directions, any compressor and its remainder, ladders of ladders."""

import math
import weakref

import pytest
import torch

import telegrad as tg
from cases import T1, numbers
from telegrad.mlmc.probabilities import level_probabilities
from telegrad.spec import build
from telegrad.wire.values import LowRank

MATRIX = torch.randn(6, 9, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def omega_of(spec, x):
    return tg.compressor(spec).variance(x) / float(x.square().sum())


def test_low_rank_levels_are_drawn_by_singular_values():
    """B1.5, B1.7: p ∝ σ and ω = (Σσ)²/Σσ² − 1; every message is a matrix of rank 1 and nuclear norm Σσ."""
    sigma = torch.linalg.svdvals(MATRIX)
    nuclear = float(sigma.sum())
    assert omega_of("mlmc(low_rank)", MATRIX) == pytest.approx(nuclear**2 / float(sigma.square().sum()) - 1, rel=1e-12)
    compressor = tg.compressor("mlmc(low_rank)").within(tg.Context(shape=MATRIX.shape))
    p = level_probabilities(compressor.ladder.levels(MATRIX.reshape(-1)), "adaptive")
    assert torch.allclose(p, sigma / nuclear, rtol=1e-12)
    estimate = compressor.encode(MATRIX, tg.Key(1)).decode()
    found = torch.linalg.svdvals(estimate)
    assert float(found[0]) == pytest.approx(nuclear, rel=1e-12)
    assert float(found[1]) < 1e-12 * nuclear


def test_directions_can_share_a_level():
    """ω + 1 = (Σ_l √(Σ_{i in l} σ_i²))² / ‖G‖²: fewer levels of larger norm."""
    sigma = torch.linalg.svdvals(MATRIX)
    levels = sum(float(part.norm()) for part in sigma.split(4))
    found = omega_of("mlmc(low_rank(rank=4))", MATRIX)
    assert found == pytest.approx(levels**2 / float(sigma.square().sum()) - 1, rel=1e-12)
    # Two levels: of 4 and of 2 directions.
    assert found <= tg.compressor("mlmc(low_rank(rank=4, rows=6))").omega(54) + 1e-12


@pytest.mark.parametrize("shape", [(20, 33), (33, 20), (25, 25)])
def test_singular_values_over_sixty_octaves_make_up_the_matrix(shape):
    """Whatever the smallest directions lose to rounding: the levels add up to v, and ΣΔ is Σσ."""
    small, g = min(shape), torch.Generator().manual_seed(4)
    left, right = (torch.linalg.qr(torch.randn(n, small, generator=g, dtype=torch.float64)).Q for n in shape)
    sigma = 2.0 ** -torch.linspace(0, 60, small, dtype=torch.float64)
    matrix = (left * sigma) @ right.t()
    compressor = tg.compressor("mlmc(low_rank)").within(tg.Context(shape=shape))
    levels = compressor.ladder.levels(matrix.reshape(-1))
    total = torch.zeros(matrix.numel(), dtype=torch.float64)
    for level in range(1, small + 1):
        for term in levels.residual(level):
            term.add_to(total, 1.0)
    assert float((total - matrix.reshape(-1)).norm()) <= 1e-14 * float(matrix.norm())
    assert float(levels.norms().sum()) == pytest.approx(float(sigma.sum()), rel=1e-6)


def test_equal_singular_values_attain_the_declared_omega():
    orthogonal = torch.linalg.qr(MATRIX[:, :6]).Q.contiguous()
    for law in ("adaptive", "fixed"):
        compressor = tg.compressor(f"mlmc(low_rank, probabilities={law})").within(tg.Context(shape=(6, 6)))
        assert compressor.variance(orthogonal) / 6 == pytest.approx(compressor.omega(36), rel=1e-12)


def test_zeros_that_fill_a_matrix_up_are_not_sent():
    """53 entries as 7 × 8: the levels add up to the vector, and their norms are of what is sent."""
    v = MATRIX.reshape(-1)[:53]
    levels = build("low_rank", "ladder").levels(v)
    total = torch.zeros(53, dtype=torch.float64)
    for level, norm in enumerate(levels.norms().tolist(), 1):
        (term,) = levels.residual(level)
        assert float(term.values.numbers().norm()) == pytest.approx(norm, rel=1e-12)
        term.add_to(total, 1.0)
    assert torch.allclose(total, v, atol=1e-13)
    assert not levels.orthogonal


def test_the_norms_of_a_filled_up_matrix_need_one_level_at_a_time(monkeypatch):
    """All of them together are √d vectors: 15 GB for one and a half million entries."""
    levels = build("low_rank", "ladder").levels(MATRIX.reshape(-1)[:53])
    made, most, numbers_of = [], [], LowRank.numbers

    def counted(values):
        found = numbers_of(values)
        made.append(weakref.ref(found))
        most.append(sum(one() is not None for one in made))
        return found

    monkeypatch.setattr(LowRank, "numbers", counted)
    levels.norms()
    assert len(made) == 7
    assert max(most) <= 2


@pytest.mark.parametrize("k", [1, 2, 3])
def test_two_levels_of_a_projection_cost_twice_the_root_of_alpha_times_the_rest(k):
    """B1.8; T1, k = 1: ω = .8626025."""
    alpha = float(T1[:k].square().sum() / T1.square().sum())
    found = omega_of(f"mlmc(two_level(topk(k={k})))", T1)
    assert found == pytest.approx(2 * math.sqrt(alpha * (1 - alpha)), rel=1e-12)
    assert k != 1 or found == pytest.approx(0.8626025, abs=5e-8)


@pytest.mark.parametrize("first", ["sign", "rtn(level=3)", "fixed_point(level=2)", "dct(chunk=8, k=2)", "stopk(s=2)"])
def test_two_levels_make_any_deterministic_compressor_unbiased(first):
    v = MATRIX.reshape(-1)
    compressor = tg.compressor(f"mlmc(two_level({first}))")
    mean = sum(p * estimate for p, estimate in compressor.enumerate_levels(v))
    assert torch.allclose(mean, v, rtol=0, atol=1e-13)
    kept = numbers(tg.compressor(first).encode(v))
    expected = (float(kept.norm()) + float((v - kept).norm())) ** 2 - float(v.square().sum())
    assert compressor.variance(v) == pytest.approx(expected, rel=1e-9)
    assert omega_of(str(compressor), v) <= compressor.omega(54)


def test_two_levels_want_a_first_one_without_randomness():
    with pytest.raises(tg.SpecError, match="without randomness"):
        tg.compressor("mlmc(two_level(randk(k=2)))")


def test_composed_levels_are_the_planes_of_the_blocks():
    """T1 in blocks of two: (4, 2) relative to 4 and (1, .5) relative to 1, each bit plane a level."""
    levels = build("composed(stopk(s=2), fixed_point)", "ladder").levels(T1)
    planes = build("fixed_point", "ladder")
    inner = [planes.levels(block) for block in (T1[:2], T1[2:])]
    assert torch.equal(levels.norms(), torch.cat([each.norms() for each in inner]))
    assert torch.equal(levels.fixed_probabilities(), torch.cat([each.fixed_probabilities() / 2 for each in inner]))
    for block, each in enumerate(inner):
        for level in (1, 2, 63):
            (ours,), (plain,) = levels.residual(63 * block + level), each.residual(level)
            listed = plain.positions.indices()
            places = (torch.arange(2) if listed is None else listed) + 2 * block
            assert torch.equal(ours.positions.indices(), places)
            assert torch.equal(ours.values.numbers(), plain.values.numbers())


def test_composed_omega_is_that_of_the_blocks_each_enlarged_by_its_planes():
    """(1 + ω) ‖v‖² = (Σ_i √(1 + ω_i) ‖v_i‖)², ω_i that of the planes of block i: B1.5 for both ladders at once."""
    v = MATRIX.reshape(-1)
    blocks = v[v.abs().argsort(descending=True)].split(8)
    roots = sum(math.sqrt(1 + omega_of("mlmc(fixed_point)", block)) * float(block.norm()) for block in blocks)
    composed = tg.compressor("mlmc(composed(stopk(s=8), fixed_point))")
    assert 1 + omega_of(str(composed), v) == pytest.approx(roots**2 / float(v.square().sum()), rel=1e-9)
    assert omega_of("mlmc(stopk(s=8))", v) < omega_of(str(composed), v) <= composed.omega(54)


def test_composed_bases_are_sent_for_every_block():
    """floating_point always sends signs and exponents: so do its blocks."""
    v = MATRIX.reshape(-1)
    levels = build("composed(stopk(s=20), floating_point)", "ladder").levels(v)
    base = torch.zeros(54, dtype=torch.float64)
    for term in levels.base():
        term.add_to(base, 1.0)
    whole = torch.zeros(54, dtype=torch.float64)
    for term in build("floating_point", "ladder").levels(v).base():
        term.add_to(whole, 1.0)
    assert torch.equal(base, whole)
