"""Uniformly distributed orthogonal matrices for short blocks, as products of random reflections."""

from __future__ import annotations

from typing import Any

import numpy as np

from telegrad.kernels.compilation import Loop
from telegrad.kernels.random_numbers.uniforms import normals
from telegrad.random import Key

__all__ = ["reflected"]


def _summed(a: Any) -> Any:
    """Σ a_i of fewer than 128 numbers in numpy's order: eight interleaved sums."""
    lanes, whole = np.zeros(8), len(a) // 8 * 8
    for i in range(whole):
        lanes[i & 7] += a[i]
    total = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))
    for i in range(whole, len(a)):
        total += a[i]
    return total


def _reflect_scalar(x: Any, draws: Any, inverse: bool) -> None:
    n, flip = len(x), np.sign(draws[len(draws) - 1])
    if not inverse:
        x[n - 1] *= flip
    for number in range(n - 1):
        i = number if inverse else n - 2 - number
        first = i * n - i * (i - 1) // 2
        mirror, rest = draws[first : first + n - i].copy(), x[i:]
        mirror /= np.sqrt(_summed(mirror * mirror))
        mirror[0] -= 1.0
        length = _summed(mirror * mirror)
        if length > 0.0:
            factor = 2.0 * _summed(mirror * rest) / length
            for j in range(n - i):
                rest[j] -= mirror[j] * factor
    if inverse:
        x[n - 1] *= flip


def _reflect_reference(x: np.ndarray, draws: np.ndarray, inverse: bool) -> None:
    n = len(x)
    ends = np.cumsum(np.arange(n, 0, -1))
    flip = np.sign(draws[-1])
    order = range(n - 1)
    if not inverse:
        x[-1] *= flip
    for i in order if inverse else reversed(order):
        mirror = draws[ends[i] - (n - i) : ends[i]].copy()
        mirror /= np.sqrt(np.square(mirror).sum())
        mirror[0] -= 1.0
        length = np.square(mirror).sum()
        if length > 0.0:
            with np.errstate(invalid="ignore", over="ignore"):  # infinite entries are refused by whoever asked
                x[i:] -= mirror * (2.0 * (mirror * x[i:]).sum() / length)
    if inverse:
        x[-1] *= flip


_reflect = Loop(_reflect_scalar, _reflect_reference, uses=[_summed])


def reflected(v: np.ndarray, key: Key, inverse: bool) -> np.ndarray:
    """A uniform orthogonal matrix as a product of reflections: number i takes e_i to a random direction of the last
    n − i axes.
    """
    x, n = v.astype(np.float64), len(v)
    _reflect(x, normals(key, n * (n + 1) // 2).numpy(), inverse)
    return x
