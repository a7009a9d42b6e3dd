"""Uniform grids: ties and ends, pairs of grids, sums of steps, and all of it in every form."""

import numpy as np
import pytest
import torch

import telegrad as tg
from telegrad.kernels.quantising.uniform_grids import BELOW, EVEN, ODD, ZERO, Refinement, UniformGrid, squared_steps
from telegrad.kernels.statistics.magnitudes import sums_of_squares


def around_zero(rule, step, top):
    return UniformGrid(0.0, step, rule, -top, top, 0.0, step / (1 + (rule == ODD)))


def in_bins(v, levels):
    low, high = float(v.min()), float(v.max())
    width = (high - low) / levels
    return UniformGrid(low, width, BELOW, 0, levels - 1, low + width / 2, width)


def test_halves_go_to_the_even_point_or_up():
    v = torch.tensor([0.25, -0.25, 0.75, -0.75, 0.5, 9.0, -9.0, 0.0], dtype=torch.float64)
    assert around_zero(EVEN, 0.5, 3).numbers(v).tolist() == [0, 0, 2, -2, 1, 3, -3, 0]
    # Points at odd multiples of a quarter: every multiple of a half lies between two.
    assert around_zero(ODD, 0.5, 3).numbers(v).tolist() == [1, -1, 3, -3, 3, 3, -3, 1]
    # Ends of bins belong to the upper one, the last one has both its ends.
    assert UniformGrid(-1.0, 0.5, BELOW, 0, 3, 0.0, 0.0).numbers(v[:5]).tolist() == [2, 1, 3, 0, 3]


@pytest.mark.parametrize(
    ("top", "dtype"), [(3, torch.int8), (127, torch.int8), (200, torch.int16), (2**29, torch.int64)]
)
@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_what_is_found_is_nearest_in_every_form(top, dtype, given, disable_numba, threads):
    v = (tg.Key(1).normal(200_000) * 2).to(given)
    step = 2 * float(v.double().abs().max()) / (2 * top + 1)

    def check():
        even, odd = around_zero(EVEN, step, top).numbers(v), around_zero(ODD, step, 2 * top + 1).numbers(v)
        assert even.dtype == dtype
        assert int(even.abs().max()) <= top
        assert bool((odd % 2 != 0).all())
        limit = step / 2 * (1 + 1e-9) + 1e-12
        assert float((v.double() - even.double() * step).abs().max()) <= limit
        assert float((v.double() - odd.double() * step / 2).abs().max()) <= limit
        return even, odd

    found = check()
    threads(2)
    assert all(torch.equal(a, b) for a, b in zip(found, check(), strict=True))
    disable_numba()
    assert all(torch.equal(a, b) for a, b in zip(found, check(), strict=True))


@pytest.mark.parametrize("n", [1, 700, 70_000, 200_001])
@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.float16], ids=str)
def test_codes_tell_pairs_apart_in_every_form(n, given, disable_numba, threads):
    """Against the pairs themselves, with more codes than entries and with fewer."""
    v = (tg.Key(n).normal(n) ** 3).to(given)
    v[0] += 1.0
    top = 2 * float(v.double().abs().max())
    pairs = [(ZERO, in_bins(v, 9)), (in_bins(v, 9), in_bins(v, 13)), (ZERO, around_zero(ODD, top / 7, 7))]
    pairs.append((around_zero(EVEN, top / 15, 7), around_zero(EVEN, top / 2047, 1023)))

    def found():
        made = []
        for pair in pairs if n > 1 else pairs[2:]:
            refinement = Refinement(*pair)
            code, counts, below = refinement.occurring(v)
            made += [code, counts, below, refinement.translated(v, np.arange(refinement.size))]
        return [np.asarray(one).tolist() for one in made]

    first = found()
    for at, (coarse, fine) in enumerate(pairs if n > 1 else pairs[2:]):
        code, counts, below, of_entry = first[4 * at : 4 * at + 4]
        both = torch.stack([grid.numbers(v).long() - grid.bottom for grid in (coarse, fine)])
        distinct, times = both.unique(dim=1, return_counts=True)
        assert torch.tensor([below, code]).tolist() == [distinct[0].tolist(), distinct.sum(0).tolist()]
        assert counts == times.tolist()
        assert of_entry == both.sum(0).tolist()
    for count in (2, 3):
        threads(count)
        assert found() == first
    disable_numba()
    assert found() == first


@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_squared_steps_are_those_of_the_points(given, disable_numba, threads):
    v = tg.Key(3).normal(200_001).to(given)
    c = float(v.double().abs().max())
    grids = [around_zero(EVEN, 2 * c / 7, 3), around_zero(ODD, 2 * c / 15, 15), in_bins(v.double(), 40)]
    points = [grid.points(grid.numbers(v).numpy()) for grid in grids]
    before = np.zeros(len(v))
    found = squared_steps(v, grids)
    for sums, here in zip(found, [*points, v.double().numpy()], strict=True):
        assert sums.tolist() == sums_of_squares(torch.from_numpy(here - before), 65536).tolist()
        before = here
    for count in (2, 3):
        threads(count)
        assert squared_steps(v, grids).tolist() == found.tolist()
    disable_numba()
    assert squared_steps(v, grids).tolist() == found.tolist()
