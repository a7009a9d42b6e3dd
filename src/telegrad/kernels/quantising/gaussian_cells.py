"""Scalar quantisers of the standard normal law: Lloyd-Max at whole bits, and a dead zone for entropy coding (A21)."""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "RATES",
    "dead_zone",
    "dead_zone_centroids",
    "dead_zone_centroids_of",
    "dead_zone_masses",
    "dead_zone_rate",
    "entropy_coded_omega",
    "lloyd_max",
    "lloyd_max_omega",
]

_FINEST, _COARSEST = 2.0**-11, 32.0
RATES = np.geomspace(1e-4, 12.0, 129)
"""The rates, in bits a number, at which dead zones are tabulated."""


def _density(x: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * np.square(x)) / math.sqrt(2 * math.pi)


def _tail(x: np.ndarray) -> np.ndarray:
    """P(z > x); erfc keeps its relative precision where 1 − ndtr(x) has none left."""
    return 0.5 * torch.erfc(torch.from_numpy(x / math.sqrt(2.0))).numpy()


def _cells(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(z in cell) and E[z; z in cell] of the cells between increasing non-negative edges, the last one open."""
    mass, moment = _tail(edges), _density(edges)
    return mass - np.append(mass[1:], 0.0), moment - np.append(moment[1:], 0.0)


@cache
def lloyd_max(bits: int) -> tuple[np.ndarray, float]:
    """The 2^(bits−1) positive centroids of the best quantiser with 2^bits cells, and 1 − D, the energy that it keeps.

    Each centroid is the mean of its cell, each edge the middle between centroids (Lloyd 1957, Max 1960): solved by
    Newton's method from the spacing of Panter and Dite.
    """
    n = 1 << (bits - 1)
    share = (np.arange(n) + 0.5) / (2 * n) + 0.5
    c = torch.special.ndtri(torch.from_numpy(share)).numpy() * math.sqrt(3.0 if bits > 1 else 1.0)
    for _ in range(100):
        edges = np.append(0.0, (c[1:] + c[:-1]) / 2)
        mass, moment = _cells(edges)
        gap = c - moment / mass
        if np.abs(gap).max() < 1e-14:
            break
        # d(centroid i)/d(edge) is (edge − centroid) density / mass at the upper edge, and its negative at the lower.
        centroid, density = moment / mass, _density(edges)
        low = (centroid - edges) * density / mass
        high = np.append((edges[1:] - centroid[:-1]) * density[1:] / mass[:-1], 0.0)
        low[0] = 0.0
        jacobian = np.eye(n) - np.diag((low + high) / 2) - np.diag(low[1:] / 2, -1) - np.diag(high[:-1] / 2, 1)
        c = c - np.linalg.solve(jacobian, gap)
    mass, moment = _cells(np.append(0.0, (c[1:] + c[:-1]) / 2))
    return moment / mass, float(2 * (moment**2 / mass).sum())


def lloyd_max_omega(bits: float) -> float:
    """D / (1 − D) at large dimension (A21.4); between whole bits a share of the entries has one bit more; below one
    bit only a random share of the entries is sent: (1 + ω₁) / bits − 1.
    """
    if bits < 1:
        return (1 + lloyd_max_omega(1)) / bits - 1
    low = int(bits)
    kept = lloyd_max(low)[1]
    if bits > low:
        kept += (bits - low) * (lloyd_max(low + 1)[1] - kept)
    return 1 / kept - 1


def _edges(zero: float, step: float, count: int) -> np.ndarray:
    return zero + step * np.arange(count, dtype=np.float64)


def dead_zone_centroids(zero: float, step: float, largest: int) -> Tensor:
    """What symbols 0 … largest stand for: 0 for |z| < zero, else the mean of cell [zero + (k−1) step, zero + k step).

    In float32 precision, so that last digits of a mathematical library do not show.
    """
    edges = _edges(zero, step, largest + 1)
    mass, moment = _cells(edges)
    return torch.from_numpy(np.append(0.0, _means(edges[:-1], step, mass[:-1], moment[:-1])))


def dead_zone_centroids_of(zero: float, step: float, symbols: np.ndarray) -> np.ndarray:
    """The same for these symbols, from 1, whatever lies between them."""
    left = zero + step * (symbols - 1).astype(np.float64)
    right = zero + step * symbols.astype(np.float64)
    return _means(left, step, _tail(left) - _tail(right), _density(left) - _density(right))


def _means(left: np.ndarray, step: float, mass: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """The means of cells from their left edges, masses and moments."""
    with np.errstate(divide="ignore", invalid="ignore"):
        centroid = moment / mass
    # Far out the density is nothing in float64; the mean of what exceeds x tends to x + 1/x.
    far = (mass < 1e-290) | ~(centroid >= left) | ~(centroid <= left + step)
    centroid[far] = left[far] + np.minimum(step / 2, 1 / np.maximum(left[far], 1.0))
    return centroid.astype(np.float32).astype(np.float64)


def dead_zone_masses(zero: float, step: float) -> np.ndarray:
    """How likely the symbols 1, 2, … are, and so −1, −2, …: of all that a normal number ever has."""
    return _all_cells(zero, step)[0]


def _all_cells(zero: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    return _cells(_edges(zero, step, int(max(0.0, 9.5 - zero) / step) + 2))


def dead_zone_rate(zero: float, step: float) -> tuple[float, float]:
    """(H, 1 − D): the entropy of the symbols in bits, and the energy that the quantiser keeps."""
    mass, moment = _all_cells(zero, step)
    seen = mass > 1e-300
    mass, moment = mass[seen], moment[seen]
    silent = max(1e-300, 1 - 2 * float(mass.sum()))
    entropy = -2 * float((mass * np.log2(mass)).sum()) - silent * math.log2(silent)
    return entropy, float(2 * (moment**2 / mass).sum())


@lru_cache(1024)
def dead_zone(rate: float) -> tuple[float, float]:
    """(zero, step) of the best such quantiser whose symbols have an entropy of `rate` bits (A21.5).

    The best ratio of the two, flat around its optimum, is interpolated; the step follows by bisection.
    """
    ratio = float(np.interp(rate, [0.3, 0.6, 1.0, 1.5, 2.5], [0.38, 0.38, 0.44, 0.48, 0.5]))
    low, high = math.log(_FINEST), math.log(_COARSEST)
    for _ in range(40):
        middle = (low + high) / 2
        step = math.exp(middle)
        low, high = (middle, high) if dead_zone_rate(ratio * step, step)[0] > rate else (low, middle)
    step = math.exp((low + high) / 2)
    return ratio * step, step


@cache
def _table() -> np.ndarray:
    return np.log([1 / dead_zone_rate(*dead_zone(float(rate)))[1] - 1 for rate in RATES])


def entropy_coded_omega(rate: float | np.ndarray) -> np.ndarray:
    """D / (1 − D) of the best dead zone at `rate` bits an entry (A21.5), interpolated; clamped to 1e-4 … 12 bits."""
    return np.exp(np.interp(np.log(np.clip(rate, RATES[0], RATES[-1])), np.log(RATES), _table()))
