"""Trellis-coded quantisation: the path of least cost through a state machine, and back from symbols to states (A28).

The numbers k of the points fall into four subsets by k mod 4. A machine with S states allows the even k in some states
and the odd ones in the others, its class; the subset that is taken moves it on. n entries are cut into segments of
65536, entry i of a segment belongs to path i mod W, and all paths start in state 0. So the entries of a step are
neighbours in memory, and the additions and comparisons of its W paths run side by side.

A row is what an entropy coder sees: the class times K, plus the column of the point, K columns a class. What is cheap
for an entry (for each subset the point with the least (z − r)² + price) is looked up in a table of narrow cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from telegrad.kernels.compilation import Loop

__all__ = [
    *("FAR", "SEGMENT", "Machine", "advanced", "advanced_through", "best_path", "cheapest", "machine", "nearest"),
    *("neighbours", "paths_of", "stepped_back", "walked_back"),
]

SEGMENT = 1 << 16
"""Entries whose paths start together, at most."""

_WIDEST, _SHORTEST = 64, 128
_CONNECTIONS = {4: (0o5, 0o2), 8: (0o13, 0o04), 16: (0o23, 0o04), 32: (0o45, 0o10), 64: (0o103, 0o024)}
_CONNECTIONS[256] = (0o515, 0o362)
FAR = np.float32(1e30)


class Machine:
    """The states of a systematic feedback machine (A28.2).

    `after[s, u]` follows s where subset u of its class is taken; `before[s, i]` are the two states that s follows, the
    smaller first, `branch[s, i]` the subsets (2 class + u) taken on the way.
    """

    def __init__(self, states: int) -> None:
        registers, (h0, h1) = states.bit_length() - 1, _CONNECTIONS[states]
        self.states = states
        self.after = np.empty((states, 2), dtype=np.int64)
        incoming: list[list[tuple[int, int]]] = [[] for _ in range(states)]
        for state in range(states):
            for u in range(2):
                fed = (h0 >> 1) * (state & 1) ^ (h1 >> 1) * u
                self.after[state, u] = (state >> 1 ^ fed) & ((1 << registers) - 1)
                incoming[self.after[state, u]].append((state, 2 * (state & 1) + u))
        pairs = np.array(incoming, dtype=np.int64)
        self.before, self.branch = pairs[:, :, 0].copy(), pairs[:, :, 1].copy()


@cache
def machine(states: int) -> Machine:
    """The machine of A28.2 with 4, 8, 16, 32, 64 or 256 states."""
    return Machine(states)


def paths_of(n: int) -> int:
    """How many paths a segment of n entries has, a power of two: more run faster, and each costs about an entry."""
    return 1 << (max(1, min(_WIDEST, n // _SHORTEST)).bit_length() - 1)


def neighbours(n: int, paths: int, lanes: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The n entries of a segment in runs that wait for each other neither by their paths nor by the lanes of an entropy
    coder; of each run the entries, their paths and their lanes.
    """
    together = min(paths, lanes)
    for low in range(0, n, together):
        entry = np.arange(low, min(low + together, n))
        yield entry, entry % paths, entry % lanes


def advanced(price: Any, old: Any, before: Any, branch: Any, new: Any, taken: Any) -> None:
    """One step of all paths: the least cost to each state, and which of the two ways in it came by."""
    states, paths = old.shape
    for state in range(states):
        first, second = old[before[state, 0]], old[before[state, 1]]
        one, other = price[branch[state, 0]], price[branch[state, 1]]
        cost, which = new[state], taken[state]
        for i in range(paths):
            a, b = first[i] + one[i], second[i] + other[i]
            which[i] = b < a
            cost[i] = min(a, b)


def cheapest(cost: Any, last: Any) -> None:
    """The state where each path costs least, the first of equals."""
    for i in range(cost.shape[1]):
        best = 0
        for state in range(1, len(cost)):
            if cost[state, i] < cost[best, i]:
                best = state
        last[i] = best


def _forward_scalar(
    z: Any, low: Any, inverse: Any, cells: Any, before: Any, branch: Any, last: Any, cell: Any, taken: Any
) -> None:
    steps, states, paths = taken.shape
    price, top = np.empty((4, paths), dtype=np.float32), np.float32(len(cells) - 1)
    old, new = np.empty((states, paths), dtype=np.float32), np.empty((states, paths), dtype=np.float32)
    old[:] = FAR
    old[0] = np.float32(0.0)
    for step in range(steps):
        entries, here = z[step * paths : (step + 1) * paths], cell[step * paths : (step + 1) * paths]
        for i in range(paths):
            place = np.uint64(min(max((entries[i] - low) * inverse, np.float32(0.0)), top))
            here[i] = place
            for subset in range(4):
                off = entries[i] - cells[place, subset]
                price[subset, i] = off * off + cells[place, 4 + subset]
        advanced(price, old, before, branch, new, taken[step])
        old, new = new, old
    cheapest(old, last)


def advanced_through(price: np.ndarray, before: np.ndarray, branch: np.ndarray, last: Any, taken: Any) -> None:
    """`advanced` over all steps from state 0 and `cheapest`, of prices of shape (steps, paths, 4): the numpy form."""
    cost = np.full((len(before), price.shape[1]), FAR, dtype=np.float32)
    cost[0] = 0.0
    for step in range(len(price)):
        first, second = (cost[before[:, i]] + price[step].T[branch[:, i]] for i in range(2))
        taken[step] = second < first
        cost = np.minimum(first, second)
    last[:] = cost.argmin(0)


def _forward_reference(
    z: np.ndarray,
    low: np.float32,
    inverse: np.float32,
    cells: np.ndarray,
    before: np.ndarray,
    branch: np.ndarray,
    last: np.ndarray,
    cell: np.ndarray,
    taken: np.ndarray,
) -> None:
    steps, _, paths = taken.shape
    cell[:] = np.clip((z - low) * inverse, np.float32(0.0), np.float32(len(cells) - 1)).astype(cell.dtype)
    off = z[:, None] - cells[cell, :4]
    price = (off * off + cells[cell, 4:]).reshape(steps, paths, 4)
    advanced_through(price, before, branch, last, taken)


def stepped_back(taken: Any, path: int, before: Any, branch: Any, last: Any) -> Any:
    """The subset that a path took in this step; its state, which is in `last`, becomes the one before."""
    state = last[path]
    which = np.int64(taken[state, path])
    last[path] = before[state, which]
    return branch[state, which]


def walked_back(taken: np.ndarray, before: np.ndarray, branch: np.ndarray, last: np.ndarray) -> np.ndarray:
    """`stepped_back` of all paths through all steps: the numpy form; the subset of each entry."""
    subset, path = np.empty((len(taken), len(last)), dtype=np.int64), np.arange(len(last))
    for step in range(len(taken) - 1, -1, -1):
        which = taken[step, last, path].astype(np.int64)
        subset[step], last[:] = branch[last, which], before[last, which]
    return subset.reshape(-1)


def _back_scalar(last: Any, cell: Any, taken: Any, before: Any, branch: Any, row_of: Any, rows: Any) -> None:
    steps, _, paths = taken.shape
    for step in range(steps - 1, -1, -1):
        for i in range(paths):
            at, subset = step * paths + i, stepped_back(taken[step], i, before, branch, last)
            if at < len(rows):
                rows[at] = row_of[subset, cell[at]]


def _back_reference(last: Any, cell: Any, taken: Any, before: Any, branch: Any, row_of: Any, rows: np.ndarray) -> None:
    rows[:] = row_of[walked_back(taken, before, branch, last), cell][: len(rows)]


def best_path(
    z: np.ndarray, low: float, inverse: float, cells: np.ndarray, row_of: np.ndarray, states: int, rows: np.ndarray
) -> None:
    """Fill `rows`, uint8, with the path of least Σ (z − r)² + price of one segment; ties go to the smaller state.

    `cells`: for z from low + c / inverse on, in float32, shape (C, 8): r of the cheapest point of each subset, then its
    price; `row_of`: their rows, uint8, shape (4, C). Costs add up in float32, in the order of the entries.
    """
    paths, own = paths_of(len(z)), machine(states)
    steps = -(-len(z) // paths)
    padded = np.zeros(steps * paths, dtype=np.float32)
    padded[: len(z)] = z
    last, cell = np.empty(paths, dtype=np.int64), np.empty(len(padded), dtype=np.uint16)
    taken = np.empty((steps, states, paths), dtype=np.uint8)
    _forward(padded, np.float32(low), np.float32(inverse), cells, own.before, own.branch, last, cell, taken)
    _back(last, cell, taken, own.before, own.branch, row_of, rows)


def _nearest_scalar(y: Any, points: Any, prices: Any, first: int, out: Any) -> None:
    # `points` increase, and what is cheapest for y never lies below what is cheapest for a smaller y.
    at = 0
    for i in range(len(y)):
        off = y[i] - points[at]
        least = off * off + prices[at]
        for k in range(at + 1, len(points)):
            off = y[i] - points[k]
            cost = off * off + prices[k]
            if cost < least:
                least, at = cost, k
        out[i] = first + at


def _nearest_reference(y: np.ndarray, points: np.ndarray, prices: np.ndarray, first: int, out: np.ndarray) -> None:
    off = y[:, None] - points
    out[:] = first + (off * off + prices).argmin(1)


def nearest(y: np.ndarray, points: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """For each of the increasing y the number of the point with the least (y − point)² + price, the first of equals;
    float64, int64.
    """
    out = np.empty(len(y), dtype=np.int64)
    _nearest(y, points, prices, 0, out)
    return out


_forward = Loop(_forward_scalar, _forward_reference, uses=[advanced, cheapest])
_back = Loop(_back_scalar, _back_reference, uses=[stepped_back])
_nearest = Loop(_nearest_scalar, _nearest_reference)
