"""The density of what dithering makes of entries whose law is known, where it bends: what a perfect coder pays for."""

from __future__ import annotations

from typing import Any

import numpy as np

from telegrad.kernels.compilation import Loop

__all__ = ["dithered_density"]

_EVENLY = 64


def _density_scalar(edge: Any, share: Any, at: Any, density: Any) -> None:
    m = len(edge)
    # Four runs that increase, merged: even points, edges less and more than a half each way, edges and a half.
    even, stop = np.empty(_EVENLY), edge[m - 1] + 0.5
    for i in range(_EVENLY):
        even[i] = i * (stop / (_EVENLY - 1))
    even[_EVENLY - 1] = stop
    inside: Any = 0
    while inside < m and edge[inside] <= 0.5:
        inside += 1
    a, b, c, d = 0, inside - 1, inside, 0
    for i in range(len(at)):
        w, x = even[a] if a < _EVENLY else np.inf, 0.5 - edge[b] if b >= 0 else np.inf
        y, z = edge[c] - 0.5 if c < m else np.inf, 0.5 + edge[d] if d < m else np.inf
        least = min(min(w, x), min(y, z))
        at[i] = least
        if least == w:
            a += 1
        elif least == x:
            b -= 1
        elif least == y:
            c += 1
        else:
            d += 1
    up, down = 0, 0
    for i in range(len(at)):
        above, below = at[i] + 0.5, abs(at[i] - 0.5)
        while up + 1 < m and edge[up + 1] <= above:
            up += 1
        while down + 1 < m and edge[down + 1] <= below:
            down += 1
        while edge[down] > below:
            down -= 1
        high, low = _between(edge, share, up, above), _between(edge, share, down, below)
        density[i] = max((high - (low if at[i] >= 0.5 else -low)) / 2, 1e-30)


def _between(edge: Any, share: Any, j: Any, x: Any) -> Any:
    """The share at x, which edge j is the last not above, linear between edges."""
    if j == len(edge) - 1 or edge[j] == x:
        return share[j]
    slope = (share[j + 1] - share[j]) / (edge[j + 1] - edge[j])
    return slope * (x - edge[j]) + share[j]


def _density_reference(edge: np.ndarray, share: np.ndarray, at: np.ndarray, density: np.ndarray) -> None:
    at[:] = np.sort(np.concatenate([np.linspace(0.0, edge[-1] + 0.5, _EVENLY), np.abs(0.5 - edge), 0.5 + edge]))
    below = at - 0.5
    up, down = np.interp(at + 0.5, edge, share), np.copysign(np.interp(np.abs(below), edge, share), below)
    density[:] = np.maximum((up - down) / 2, 1e-30)


_density = Loop(_density_scalar, _density_reference, uses=[_between])


def dithered_density(edge: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points where the density of |entry + dither| may bend, increasing, some of them twice, and the density there, for
    a dither uniform on [−½, ½). `share`: of the magnitudes up to each `edge`, which increase from 0; linear between.
    """
    at, density = np.empty((2, _EVENLY + 2 * len(edge)))
    _density(edge, share, at, density)
    return at, density
