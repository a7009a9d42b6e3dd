"""Entries by binary exponent: every form and number of threads, against exact arithmetic."""

import math

import numpy as np
import pytest
import torch

import telegrad as tg
from telegrad.kernels.histograms.by_exponent import drawn_by_exponent, energies, exponent_of

VECTORS = {
    "gauss": tg.Key(1).normal(300_000).float(),
    "heavy": torch.cat([tg.Key(2).normal(2_000).pow(9), torch.zeros(5)]).double(),
    "short floats": tg.Key(3).normal(5_000).bfloat16(),
    "over the whole range": torch.tensor([2.0**-1074, 2.0**-1022, 1.5, 0.0, -(2.0**1023)], dtype=torch.float64),
}


@pytest.mark.parametrize("name", VECTORS)
def test_counts_and_energies_are_those_of_single_entries(name, disable_numba, threads):
    v = VECTORS[name]
    numbers = [x for x in v.double().tolist() if x]
    found = [energies(v)]
    threads(2)
    found.append(energies(v))
    disable_numba()
    found.append(energies(v))
    exponent = [max(math.frexp(x)[1] - 1, -1022) for x in numbers]
    assert exponent_of(torch.tensor(numbers, dtype=torch.float64)).tolist() == exponent
    for top, count, energy in found:
        assert top == max(exponent)
        assert len(count) == len(energy) == top - min(exponent) + 1
        for place in np.flatnonzero(count)[:: max(1, len(np.flatnonzero(count)) // 6)].tolist():
            mine = [math.ldexp(x, place - top) for x, e in zip(numbers, exponent, strict=True) if e == top - place]
            assert int(count[place]) == len(mine)
            assert energy[place] == pytest.approx(math.fsum(x * x for x in mine), rel=1e-11)
        assert int(count.sum()) == len(numbers)
    assert np.array_equal(found[0][2], found[1][2])


@pytest.mark.parametrize("name", VECTORS)
def test_an_entry_is_drawn_where_its_uniform_lies_below_its_exponents_probability(name, disable_numba, threads):
    v, key = VECTORS[name], tg.Key(6).fold(role="subset")
    top, count, _ = energies(v)
    probability = np.linspace(1.0, 0.05, len(count))
    own = probability[np.clip(top - exponent_of(v), 0, len(count) - 1)]
    expected = ((key.uniform(len(v)) < torch.from_numpy(own)) & (v != 0)).nonzero().squeeze(1)
    for number in (1, 2):
        threads(number)
        assert torch.equal(drawn_by_exponent(v, top, probability, key), expected)
    disable_numba()
    assert torch.equal(drawn_by_exponent(v, top, probability, key), expected)
