"""Trellis codes: the best path by enumeration, streams that come back, and the rows of A28."""

import itertools

import numpy as np
import pytest

import telegrad as tg
from telegrad.kernels.trellis.codes import (
    BITS,
    STATES,
    designs,
    most_positions,
    position_at,
    trellis_code,
    trellis_omega,
)
from telegrad.kernels.trellis.paths import SEGMENT, machine, nearest, paths_of

KEY = tg.Key(seed=28)


def paths(code, z):
    rows = np.empty(len(z), dtype=np.uint8)
    for start in range(0, len(z), SEGMENT):
        code.quantise(z[start : start + SEGMENT], rows[start : start + SEGMENT])
    return rows


def price_of(code, rows):
    return code.price * np.round((BITS - np.log2(code.frequency.reshape(-1)[rows])) * 1024) / 1024


@pytest.mark.parametrize("states", [4, 8, 16, 32, 64, 256])
def test_a_machine_allows_two_ways_on_and_two_ways_in(states):
    own = machine(states)
    assert (np.bincount(own.after.reshape(-1)) == 2).all()
    for state, i in itertools.product(range(states), range(2)):
        before, branch = own.before[state, i], own.branch[state, i]
        assert branch >> 1 == before & 1
        assert own.after[before, branch & 1] == state
    assert (own.before[:, 0] < own.before[:, 1]).all()
    # Two paths that part meet again after as many steps as there are registers, at the earliest.
    reached = [{int(state)} for state in own.after[0]]
    for _ in range(states.bit_length() - 2):
        assert not reached[0] & reached[1]
        reached = [{int(s) for state in each for s in own.after[state]} for each in reached]


@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("rate", [0.3, 1.0, 2.0])
def test_the_path_costs_least_of_all(states, rate):
    """By enumeration of every sequence of the four points nearest in each class, five entries, one path."""
    code, z = trellis_code(states, position_at(states, rate)), 1.3 * KEY.normal(5).numpy()
    found = paths(code, z.astype(np.float32))
    point, columns = code.point, code.columns

    def cost(rows):
        return float(((z - point[rows]) ** 2 + price_of(code, rows)).sum())

    used = code.frequency.reshape(-1) > 0
    choices = [
        [
            sorted(
                (row for row in range(parity * columns, (parity + 1) * columns) if used[row]),
                key=lambda row, x=x: (x - point[row]) ** 2,
            )[:4]
            for parity in range(2)
        ]
        for x in z
    ]
    best, ways = np.inf, [(0, [])]
    for entry in choices:
        ways = [(code.moves[state, row], [*rows, row]) for state, rows in ways for row in entry[state & 1]]
    best = min(cost(np.array(rows)) for _, rows in ways)
    # Points are looked up in cells a sixteenth of their distance wide.
    assert best - 1e-6 <= cost(found) <= best + 0.02 * code.price


def test_nearest_is_the_cheapest_point():
    points, prices = np.array([-2.0, 0.0, 0.1, 3.0]), np.array([0.5, 0.0, 4.0, 1.0])
    y = np.linspace(-5, 5, 1001)
    expected = np.argmin((y[:, None] - points) ** 2 + prices, axis=1)
    assert np.array_equal(nearest(y, points, prices), expected)
    assert 2 not in expected


@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("n", [1, 2, 77, 300, 5000, 66_000])
def test_streams_of_paths_come_back_and_others_are_told(states, n):
    code = trellis_code(states, position_at(states, 0.7))
    rows = paths(code, KEY.normal(n).numpy().astype(np.float32))
    first, words = code.encoder.piece(rows, code.lanes)
    out = np.empty_like(rows)
    assert code.decode(first, words, out)
    assert np.array_equal(out, rows)
    # Each path starts in state 0 and follows the machine.
    state = np.zeros(paths_of(min(n, SEGMENT)), dtype=np.int64)
    for step in rows[: min(n, SEGMENT) // len(state) * len(state)].reshape(-1, len(state)):
        assert np.array_equal(step // code.columns, state & 1)
        state = code.moves[state, step].astype(np.int64)
    assert not code.decode(first + np.uint32(1), words, out)
    assert not code.decode(first, words[:-1], out) or not len(words)


@pytest.mark.parametrize("n", [1, 500, 20_000])
def test_the_numpy_form_finds_the_same_paths(n, disable_numba):
    code, z = trellis_code(8, position_at(8, 1.3)), KEY.normal(n).numpy().astype(np.float32)
    rows = paths(code, z)
    stream = code.encoder.piece(rows, code.lanes)
    disable_numba()
    assert np.array_equal(paths(code, z), rows)
    out = np.empty_like(rows)
    assert code.decode(*stream, out)
    assert np.array_equal(out, rows)


@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("position", [2.0, 7.5, 14.0, 22.5, 33.0, 50.5])
def test_codes_have_the_rate_and_error_of_their_designs_on_fresh_numbers(states, position):
    """Within 2 %, between designs as well; 2^18 numbers scatter by about .5 %, and the bursts of low rates by more."""
    code, at = trellis_code(states, round(256 * position)), np.arange(len(designs(states)))
    z = KEY.fold(role="fresh").normal(1 << 18).numpy()
    rows = paths(code, z.astype(np.float32))
    q = code.point[rows]
    omega = float((q @ q) * (z @ z) / (q @ z) ** 2 - 1)
    bits = float((BITS - np.log2(code.frequency.reshape(-1)[rows])).mean())
    rates = [one.rate for one in designs(states)]
    assert bits == pytest.approx(np.interp(position, at, rates), rel=0.02 if position > 10 else 0.1)
    assert omega == pytest.approx(float(trellis_omega(states, bits)), rel=0.02)


def test_the_rows_of_the_reference():
    """(A28.4): R, ω at 8 states, and at 256 about .03 bits from ½ log2(1 / D) at two bits."""
    for rate, omega in ((2.071, 0.0676), (1.080, 0.334), (0.887, 0.471), (0.781, 0.589)):
        known = designs(8)
        found = np.exp(np.interp(rate, [one.rate for one in known], [np.log(one.omega) for one in known]))
        assert found <= 1.02 * omega
    known = designs(256)
    gaps = [one.rate - 0.5 * np.log2(1 + 1 / one.omega) for one in known if one.rate > 1]
    assert max(gaps) < 0.04


@pytest.mark.parametrize("states", STATES)
def test_frequencies_add_up_at_every_position(states):
    for position in range(0, most_positions(states) + 1, 97):
        code = trellis_code(states, position)
        assert (code.frequency.sum(1) == 1 << BITS).all()
        assert code.frequency.min() >= 0
        assert code.frequency.max() < 1 << BITS
        assert 2 * code.columns <= 256
        used = code.point[: code.columns][code.frequency[0] > 0]
        assert (np.diff(used) >= 0).all()
        assert np.array_equal(used, -used[::-1])
