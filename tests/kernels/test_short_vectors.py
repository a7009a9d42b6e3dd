"""What short vectors have in one compiled call is what the parts do one after the other, in both forms."""

import numpy as np
import pytest
import torch

import telegrad as tg
from cases import FixedKey
from telegrad.compressors.importance import counted_threshold, optimal_threshold
from telegrad.kernels.coding import bucketed_integers, short_streams
from telegrad.kernels.quantising import signs
from telegrad.kernels.quantising.signs import LEAST, signs_in_proportion
from telegrad.kernels.random_numbers import weighted_draws
from telegrad.kernels.selection import by_rank, drawn_block, thresholds
from telegrad.kernels.selection.bins import bins_of
from telegrad.kernels.selection.thresholds import UNKNOWN, short_threshold
from telegrad.kernels.threads import ONE_CHUNK
from telegrad.mlmc.stopk import SegmentedTopKLadder

LENGTHS = [by_rank.SMALL, 10_001, ONE_CHUNK - 1]


def vector(kind, n):
    normal = tg.Key(n).normal(n)
    made = {
        "normal": normal,
        "heavy": normal**5 * 1e-3,
        "few values": (2 * normal).round(),
        "mostly zero": torch.where(normal > 1.3, normal, 0.0),
        "one bin": 1.0 + normal.abs() * 1e-3,
        "one outlier": torch.where(torch.arange(n) == 77, 1e6, normal),
    }
    return made[kind].float()


KINDS = ["normal", "heavy", "few values", "mostly zero", "one bin", "one outlier"]


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_entries_in_one_call(kind, n):
    v, width = vector(kind, n), by_rank.first_bits(torch.empty(n))
    arguments = v.numpy(), width, bins_of(v.dtype, width).infinite
    order = torch.sort(v.abs(), descending=True, stable=True).indices.numpy()
    for k in (1, 100, n // 2, n - 1):
        found = by_rank._largest(*arguments, k, by_rank.common_from(n))
        assert np.array_equal(found, by_rank._largest.reference(*arguments, k, by_rank.common_from(n)))
        assert len(found) == 0 or np.array_equal(found, np.sort(order[:k]))
    assert len(by_rank._largest(*arguments, 100, n)) == 100


@pytest.mark.parametrize("values", ["fp32", "sign"])
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_block_is_that_of_the_levels(kind, n, values, disable_numba):
    v, ladder = vector(kind, n), SegmentedTopKLadder(0.01, values=values)
    levels, found = ladder.levels(v), {}
    law = weighted_draws.proportional(levels.norms().numpy())
    for u in (0.0, 0.3, 0.77, 1 - 2.0**-53):
        if (one := ladder.drawn(v, FixedKey(u))) is None:  # many magnitudes are alike
            continue
        level, term = found[u] = one
        assert level == weighted_draws.draw(law, u)
        (residual,) = levels.residual(level)
        assert torch.equal(term.positions.indices(), residual.positions.indices())
        assert torch.equal(term.values.numbers(), residual.values.numbers().double() * (1 / law[level - 1]))
    assert found or kind in ("few values", "mostly zero", "one bin")
    disable_numba()
    for u, (level, term) in found.items():
        again, same = ladder.drawn(v, FixedKey(u))
        assert again == level
        assert torch.equal(same.positions.indices(), term.positions.indices())
        assert torch.equal(same.values.numbers(), term.values.numbers())


def test_what_is_no_short_float32_vector_is_left_to_the_parts():
    v, ladder = vector("normal", 5000), SegmentedTopKLadder(0.01)
    assert ladder.drawn(v, FixedKey(0.5)) is not None
    broken = v.clone()
    broken[4321] = float("nan")
    for other in (v.double(), v.bfloat16(), v[:4095], torch.ones(ONE_CHUNK), v * 1e-30, torch.zeros(5000), broken):
        assert ladder.drawn(other, FixedKey(0.5)) is None
    for other in (v.double(), v.bfloat16(), torch.ones(ONE_CHUNK), broken):
        assert short_threshold(other, 50) == UNKNOWN
    bins = bins_of(v.dtype, 13)
    assert len(by_rank._largest(broken.numpy(), 13, bins.infinite, 50, 5000)) == 0
    found = drawn_block._drawn.reference(broken.numpy(), 13, *bins[1:4], np.array([0, 5000]), 2, 0.0, 0.0, 0.5)
    assert found[0] == 0


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_threshold_in_one_call(kind, n, disable_numba):
    v, found = vector(kind, n), {}
    for k in (1, n / 100, n / 3, n - 1):
        exact = optimal_threshold(v.abs().double(), k)
        found[k] = short_threshold(v, k)
        assert found[k] == UNKNOWN or found[k] == pytest.approx(exact, rel=1e-12)
        assert counted_threshold(v, k) == pytest.approx(exact, rel=1e-12)
        bins = bins_of(v.dtype, thresholds._WIDTH)
        assert thresholds._short.reference(v.numpy(), *bins, k) == found[k]
    assert any(t != UNKNOWN for t in found.values())


@pytest.mark.parametrize("n", [0, 1, 40, 64, 3000])
def test_signs_are_drawn_in_proportion_among_the_entries_that_count(n):
    key = tg.Key(n)
    v = key.normal(n).numpy()
    v[::7] = 0.0
    v[3::11] = LEAST / 2
    largest, which, sign = signs_in_proportion(v, key)
    present = np.flatnonzero(np.abs(v) >= LEAST)
    u = key.uniform(n).numpy()[: len(present)]
    assert largest == np.abs(v).max(initial=0.0)
    assert np.array_equal(which, present[u * largest < np.abs(v[present])])
    assert np.array_equal(sign, np.sign(v[which]))
    assert sign.dtype == np.int8
    source = signs.uniform_source(key, n)
    for one, other in zip((largest, which, sign), signs._signs.reference(v, *source), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "values", [[], [0], [0] * 9, [1], [5, 0, 3], [2**61, 1], list(range(500)), [0] * 400 + [10**6]]
)
def test_short_streams_are_packed_alike_in_both_forms(values):
    array = np.array(values, dtype=np.int64)
    compiled, reference = short_streams._pack(array), short_streams._pack.reference(array)
    assert compiled[:3] == reference[:3]
    assert compiled[3].tobytes() == reference[3].tobytes()
    b, nbits, packed, largest = short_streams.packed_shortest(array)
    assert largest == max(values, default=0)
    fixed = largest.bit_length() * len(values)
    rice = min(sum(value >> p for value in values) + (p + 1) * len(values) for p in range(32))
    assert nbits == min(rice, fixed)
    assert (b < 0) == (fixed <= rice)
    assert len(packed) == (nbits + 7) // 8


def test_gaps_lie_between_the_places():
    places = np.array([0, 1, 5, 2**40])
    expected = [0, 0, 3, 2**40 - 6]
    assert bucketed_integers.gaps_of(places).tolist() == expected
    other = np.empty(4, dtype=np.int64)
    bucketed_integers._between.reference(places, other)
    assert other.tolist() == expected
    assert len(bucketed_integers.gaps_of(places[:0])) == 0


def test_laws_are_proportional_and_leave_out_what_would_overflow():
    weights = np.array([0.0, 3.0, 1e-320, 1.0, 4.0])
    assert weighted_draws.proportional(weights).tolist() == [0.0, 0.375, 0.0, 0.125, 0.5]
    assert weighted_draws.proportional(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]
    many = np.abs(tg.Key(3).normal(1000).numpy())
    for one in (weights, np.zeros(3), many, many * 1e300):
        other = np.empty_like(one)
        weighted_draws._proportional.reference(one, other)
        assert np.array_equal(weighted_draws.proportional(one), other)
    law = weighted_draws.proportional(many * (many > 0.5))
    for u in tg.Key(4).uniform(200).tolist():
        level = weighted_draws.draw(law, u)
        assert level == weighted_draws._draw.reference(law, u)
        assert law[: level - 1].sum() <= u + 1e-12 <= law[:level].sum() + 2e-12
        assert law[level - 1] > 0


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64])
def test_signs_apart_from_what_follows(dtype):
    least = int(np.iinfo(dtype).min)
    symbols = np.array(
        [1, -1, 3, -127, 127, least + 1, 2, -1, -1] + ([least] if dtype != np.int64 else []), dtype=dtype
    )
    bits, rest = signs.signs_apart(symbols)
    assert np.unpackbits(bits, count=len(symbols)).tolist() == [int(symbol < 0) for symbol in symbols]
    assert rest.tolist() == [abs(int(symbol)) - 1 for symbol in symbols]
    other = np.zeros_like(bits), np.empty_like(rest)
    signs._apart.reference(symbols, *other)
    assert np.array_equal(other[0], bits)
    assert np.array_equal(other[1], rest)
    assert len(signs.signs_apart(symbols[:0])[0]) == 0
