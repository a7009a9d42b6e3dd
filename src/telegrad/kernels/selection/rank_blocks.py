"""What the counts of a histogram's bins, or sorted magnitudes, tell: sums over blocks of entries in the order of their
magnitudes, and where a threshold lies.
"""

from __future__ import annotations

import numpy as np

from telegrad.kernels.compilation import Loop

__all__ = ["block_norms", "counted_blocks", "sorted_blocks"]


def counted_blocks(
    counts: np.ndarray, smallest: np.ndarray, largest: np.ndarray, edges: np.ndarray, power: int
) -> tuple[np.ndarray, np.ndarray]:
    """(m_l, Σ (|v_j| / m_l)^power) of every block l, m_l its largest magnitude; power 1 or 2; float64, shape (L,).

    Block l holds the ranks edges[l] … edges[l+1] − 1 (0 the largest entry, edges[L] their number). As if the entries
    of each bin were spread evenly from smallest[b] to largest[b]; `counts`: of the bins, from zero upwards.
    """
    tops, sums = np.empty(len(edges) - 1), np.empty(len(edges) - 1)
    _counted(counts, smallest, largest, edges, power, tops, sums)
    return tops, sums


def block_norms(
    counts: np.ndarray, smallest: np.ndarray, largest: np.ndarray, edges: np.ndarray, power: int, reserve: float
) -> np.ndarray:
    """m_l √Σ (|v_j| / m_l)^power of the `counted_blocks`, each at least `reserve` of their mean; float64."""
    norms = np.empty(len(edges) - 1)
    _norms(counts, smallest, largest, edges, power, reserve, norms)
    return norms


def sorted_blocks(magnitude: np.ndarray, edges: np.ndarray, power: int) -> tuple[np.ndarray, np.ndarray]:
    """The same, exactly, of float64 magnitudes in decreasing order."""
    tops, sums = np.empty(len(edges) - 1), np.empty(len(edges) - 1)
    _sorted(magnitude, edges, power, tops, sums)
    return tops, sums


def mean_power(low, high, power):  # type: ignore[no-untyped-def]
    """The mean of x^power over x from low to high, power 1 or 2."""
    return (low + high) / 2 if power == 1 else (low * low + low * high + high * high) / 3


def _counted_scalar(counts, smallest, largest, edges, power, tops, sums):  # type: ignore[no-untyped-def]
    """From the smallest entry up: differences of sums from that end; a block makes at least what its smallest entry
    makes times its size.
    """
    b, smaller, after, tail_after = 0, 0.0, 0.0, 0.0
    while counts[b] == 0:
        b += 1
    above = edges[-1] - counts[b]
    for e in range(len(edges) - 1, -1, -1):
        while edges[e] < above:
            smaller += np.float64(counts[b]) * mean_power(smallest[b], largest[b], power)
            b += 1
            while counts[b] == 0:
                b += 1
            above -= counts[b]
        below = np.float64(above + counts[b] - edges[e]) / np.float64(counts[b])
        at = smallest[b] + below * (largest[b] - smallest[b])
        tail = smaller + np.float64(counts[b]) * below * mean_power(smallest[b], at, power)
        if e < len(tops):
            top = at if at > 0.0 else 1.0
            least = np.float64(edges[e + 1] - edges[e]) * (after if power == 1 else after * after)
            tops[e], sums[e] = at, max(tail - tail_after, least) / (top if power == 1 else top * top)
        after, tail_after = at, tail


def _counted_reference(
    counts: np.ndarray,
    smallest: np.ndarray,
    largest: np.ndarray,
    edges: np.ndarray,
    power: int,
    tops: np.ndarray,
    sums: np.ndarray,
) -> None:
    bins = np.flatnonzero(counts)[::-1]
    count, low, high = (x[bins] for x in (counts, smallest, largest))
    # For the places between blocks: the bin each lies in, the share of it that lies above, the magnitude there.
    reached = np.cumsum(count)
    here = np.minimum(np.searchsorted(reached, edges, side="right"), len(bins) - 1)
    below = (reached[here] - edges) / count[here]
    at = low[here] + below * (high - low)[here]
    smaller = np.append(np.cumsum((count * mean_power(low, high, power))[:0:-1])[::-1], 0.0)
    tail = smaller[here] + count[here] * below * mean_power(low[here], at, power)
    top = np.where(at[:-1] > 0, at[:-1], 1.0)
    tops[:] = at[:-1]
    sums[:] = np.maximum(tail[:-1] - tail[1:], np.diff(edges) * at[1:] ** power) / top**power


def norms_scalar(counts, smallest, largest, edges, power, reserve, norms):  # type: ignore[no-untyped-def]
    tops, sums, total = np.empty(len(norms)), np.empty(len(norms)), 0.0
    _counted_scalar(counts, smallest, largest, edges, power, tops, sums)
    for block in range(len(norms)):
        norms[block] = tops[block] * np.sqrt(sums[block])
        total += norms[block]
    least = total * reserve / len(norms)
    for block in range(len(norms)):
        norms[block] = max(norms[block], least)


def _norms_reference(
    counts: np.ndarray,
    smallest: np.ndarray,
    largest: np.ndarray,
    edges: np.ndarray,
    power: int,
    reserve: float,
    norms: np.ndarray,
) -> None:
    tops, sums = np.empty(len(norms)), np.empty(len(norms))
    _counted_reference(counts, smallest, largest, edges, power, tops, sums)
    norms[:] = tops * np.sqrt(sums)
    # Cumulated, because that has one order.
    np.maximum(norms, np.cumsum(norms)[-1] * reserve / len(norms), out=norms)


def _sorted_scalar(magnitude, edges, power, tops, sums):  # type: ignore[no-untyped-def]
    for block in range(len(tops)):
        top, total = magnitude[edges[block]], 0.0
        if top > 0.0:
            for i in range(edges[block], edges[block + 1]):
                share = magnitude[i] / top
                total += share if power == 1 else share * share
        tops[block], sums[block] = top, total


def _sorted_reference(magnitude: np.ndarray, edges: np.ndarray, power: int, tops: np.ndarray, sums: np.ndarray) -> None:
    tops[:] = magnitude[edges[:-1]]
    for block, top in enumerate(tops):
        shares = magnitude[edges[block] : edges[block + 1]] / (top if top > 0 else 1.0)
        sums[block] = np.cumsum(shares**power)[-1]  # cumulated, because that has one order


_counted = Loop(_counted_scalar, _counted_reference, uses=[mean_power])
_norms = Loop(norms_scalar, _norms_reference, uses=[_counted_scalar])
_sorted = Loop(_sorted_scalar, _sorted_reference)
