"""Random subsets and permutations by compiled loops: the very ones of `Key`, in every form."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from telegrad.kernels.random_numbers import subsets
from telegrad.kernels.random_numbers.permutation_shares import dealt
from telegrad.kernels.random_numbers.subsets import permutation, subset
from telegrad.random import Key

SIZES = [(0, 0), (1, 0), (1, 1), (10, 3), (64, 64), (65, 1), (129, 64), (1000, 501), (9**5, 600), (9**5, 30_000)]


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_subsets_are_the_keys_own_in_every_form(n, k, disable_numba):
    keys = [Key(seed) for seed in range(3)]
    compiled = [subset(key, n, k) for key in keys]
    narrow = [subset(key, n, k, np.int32) for key in keys]
    assert all(map(torch.equal, narrow, [places.int() for places in compiled]))
    disable_numba()
    for key, places in zip(keys, compiled, strict=True):
        assert torch.equal(places, key.subset(n, k))
        assert torch.equal(places, subset(key, n, k))
        assert torch.equal(places, subset(key, n, k, np.int32).long())


@pytest.mark.parametrize("n", [0, 1, 1000, 32_768, 100_000, 200_001])
def test_permutations_are_the_keys_own_for_all_threads_and_forms(n, threads, disable_numba):
    key, found = Key(3), []
    for count in (1, 3):
        threads(count)
        found.append(permutation(key, n))
    disable_numba()
    for order in found:
        assert torch.equal(order, key.permutation(n))
    assert torch.equal(permutation(key, n), found[0])


@pytest.mark.parametrize("n", [1, 1000, 40_000, 70_000, 300_001])
@pytest.mark.parametrize("parts", [1, 3, 64])
def test_a_hand_is_what_the_permutation_deals_for_all_threads_and_forms(n, parts, threads, disable_numba):
    key = Key(4)
    order = key.permutation(n)
    for part in {0, min(n, parts) - 1}:
        hand = order[part::parts].sort().values
        for count in (1, 3):
            threads(count)
            assert torch.equal(dealt(key, n, parts, part), hand)
        assert torch.equal(dealt(key, n, parts, part, np.int32), hand.int())
    disable_numba()
    assert torch.equal(dealt(key, n, parts, part), hand)


def law(n, k, distinct=(), seen=None, chance=1.0):
    """The chance of each set that the first k distinct ones of independent draws, uniform below n, make; repeated draws
    change nothing, so each next distinct one is uniform among the rest."""
    seen = {} if seen is None else seen
    if len(distinct) == k:
        places = tuple(sorted(distinct))
        seen[places] = seen.get(places, 0.0) + chance
        return seen
    rest = [place for place in range(n) if place not in distinct]
    for place in rest:
        law(n, k, (*distinct, place), seen, chance / len(rest))
    return seen


@pytest.mark.parametrize(("n", "k"), [(5, 2), (6, 3), (5, 4)])
def test_marking_draws_until_enough_are_distinct_makes_all_subsets_alike(n, k):
    """By enumeration of the order of distinct draws every k-subset has chance 1 / C(n, k); and of 6,000 keys' subsets
    none deviates from that: chi-square over them within 5 standard deviations of its mean (level 6e-7, about).
    """
    exact = law(n, k)
    assert set(exact) == set(combinations(range(n), k))
    assert all(math.isclose(chance, 1 / math.comb(n, k)) for chance in exact.values())
    draws, counts = 6_000, dict.fromkeys(exact, 0)
    for seed in range(draws):
        counts[tuple(subset(Key(seed), n, k).tolist())] += 1
    expected, cells = draws / len(counts), len(counts) - 1
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    assert abs(statistic - cells) < 5 * math.sqrt(2 * cells)


@pytest.mark.parametrize("others", [False, True])
def test_marks_are_listed_at_every_place_of_a_word(others):
    """One place of 192, or all but one."""
    for place in range(192):
        marks = np.full(3, 2**64 - 1 if others else 0, dtype=np.uint64)
        marks[place // 64] ^= np.uint64(1) << np.uint64(place % 64)
        for form in (subsets.list_marks, subsets.list_marks.reference):
            places = np.empty(192 if others else 2, dtype=np.int64)
            form(marks, places)
            assert places[:-1].tolist() == [i for i in range(192) if (i == place) != others]


@pytest.mark.parametrize(("n", "k"), [(3, 4), (3, -1), (2**31, 1)])
def test_an_impossible_subset_is_refused(n, k):
    with pytest.raises(ValueError, match=rf"n={n}, k={k}.* is allowed"):
        subset(Key(0), n, k)
