"""Subtractive dithering through a trellis: paths, what an entropy coder sees of them, and back (A28.6).

Everything is in units of the step 2Δ. With u uniform on [0, 1) an entry y is dithered to y + 2u and lies among the
multiples of ½ that its state's class allows: the integers m, plus ½ in the odd class. So there are two candidates, the
integers below and above t = y + 2u − class / 2, one of each subset m mod 2. With 2u − class / 2 = d + n, n whole and
the dither d in [−½, ½), the symbol is q = m − n and stands for q − d, as in A26: it is coded with its probability
given d.
The class comes from the path, which starts in state 0; so whoever has the symbols can follow it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.random_numbers.uniforms import STRIDE, UNIT, bits_at, bits_from, state_at
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import in_blocks
from telegrad.kernels.trellis.followed_paths import turned
from telegrad.kernels.trellis.paths import (
    FAR,
    SEGMENT,
    advanced,
    advanced_through,
    cheapest,
    machine,
    paths_of,
    stepped_back,
    walked_back,
)
from telegrad.random import Key

__all__ = ["DENSITIES", "dithered_paths", "path_error"]

_53 = np.uint64(53)
DENSITIES = {
    8: np.array([1.4418, 1.2646, 0.999, 0.6887, 0.3954, 0.1619, 0.0424, 0.0058, 0.0004, 0.0]),
    256: np.array([1.5147, 1.3229, 0.9956, 0.6269, 0.3367, 0.1435, 0.0472, 0.0108, 0.0015, 0.0002]),
}
"""The densities of errors from 0 to .1, .2, … steps on either side, by simulation."""
_ERRORS = {8: (0.0649, 0.105), 256: (0.0613, 0.22)}


def _forward_scalar(
    x: Any, step: float, offset: Any, inner: Any, first: int, before: Any, branch: Any, last: Any, taken: Any
) -> None:
    steps, states, paths = taken.shape
    price, stream = np.empty((4, paths), dtype=np.float32), state_at(offset, first)
    old, new = np.empty((states, paths), dtype=np.float32), np.empty((states, paths), dtype=np.float32)
    old[:] = FAR
    old[0] = np.float32(0.0)
    for place in range(steps):
        for i in range(paths):
            at = place * paths + i
            y = np.float64(x[at]) / step if at < len(x) else 0.0
            t = y + np.float64(bits_at(stream, inner)) * UNIT * 2.0
            stream += STRIDE
            for parity in range(2):
                below = np.floor(t)
                off, odd = np.float32(t - below), np.int64(below) & 1
                up = np.float32(1.0) - off
                price[2 * parity + odd, i] = off * off
                price[2 * parity + 1 - odd, i] = up * up
                t -= 0.5
        advanced(price, old, before, branch, new, taken[place])
        old, new = new, old
    cheapest(old, last)


def _forward_reference(
    x: np.ndarray,
    step: float,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    before: np.ndarray,
    branch: np.ndarray,
    last: np.ndarray,
    taken: np.ndarray,
) -> None:
    steps, _, paths = taken.shape
    y = np.zeros(steps * paths)
    y[: len(x)] = x.astype(np.float64) / step
    t = y + bits_from(offset, inner, first, len(y)) * UNIT * 2.0
    price, at = np.empty((len(y), 4), dtype=np.float32), np.arange(len(y))
    for parity in range(2):
        below = np.floor(t)
        off, odd = (t - below).astype(np.float32), below.astype(np.int64) & 1
        up = np.float32(1.0) - off
        price[at, 2 * parity + odd], price[at, 2 * parity + 1 - odd] = off * off, up * up
        t = t - 0.5
    advanced_through(price.reshape(steps, paths, 4), before, branch, last, taken)


def _back_scalar(
    x: Any,
    step: float,
    offset: Any,
    inner: Any,
    first: int,
    last: Any,
    taken: Any,
    before: Any,
    branch: Any,
    out: Any,
) -> None:
    steps, _, paths = taken.shape
    for place in range(steps - 1, -1, -1):
        stream = state_at(offset, first + place * paths)
        for i in range(paths):
            at, subset = place * paths + i, stepped_back(taken[place], i, before, branch, last)
            bits = bits_at(stream, inner)
            stream += STRIDE
            if at < len(x):
                parity = subset >> 1
                t = np.float64(x[at]) / step + np.float64(bits) * UNIT * 2.0 - 0.5 * np.float64(parity)
                m = np.int64(np.floor(t))
                m += (m ^ subset) & 1
                out[at] = m - np.int64(turned(bits, np.uint64(parity)) >> _53)


def _back_reference(
    x: np.ndarray,
    step: float,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    last: np.ndarray,
    taken: np.ndarray,
    before: np.ndarray,
    branch: np.ndarray,
    out: np.ndarray,
) -> None:
    subset = walked_back(taken, before, branch, last)[: len(x)]
    parity, bits = subset >> 1, bits_from(offset, inner, first, len(x))
    m = np.floor(x.astype(np.float64) / step + bits * UNIT * 2.0 - 0.5 * parity).astype(np.int64)
    m += (m ^ subset) & 1
    out[:] = m - (turned(bits, parity.astype(np.uint64)) >> _53).astype(np.int64)


def dithered_paths(v: Tensor, step: float, seed: int, states: int) -> Tensor:
    """The symbols of v, segment by segment, with the dither of `seed`; int32."""
    whole, out, own, stream = plain(v), np.empty(len(v), dtype=np.int32), machine(states), Key(seed).stream

    def work(start: int, stop: int) -> None:
        x, paths = whole[start:stop], paths_of(stop - start)
        last, taken = np.empty(paths, dtype=np.int64), np.empty((-(-len(x) // paths), states, paths), dtype=np.uint8)
        _forward(x, step, *stream, start, own.before, own.branch, last, taken)
        _back(x, step, *stream, start, last, taken, own.before, own.branch, out[start:stop])

    in_blocks(work, len(v), SEGMENT)
    return torch.from_numpy(out)


def path_error(states: int, n: int) -> float:
    """E (y − ŷ)² of the entries of n in units of the step, by simulation: 1/12 without paths (one state); nearly the
    same at the start of a path.
    """
    if states == 1:
        return 1 / 12
    far, start = _ERRORS[states]
    return min(1 / 12, far + start / -(-min(n, SEGMENT) // paths_of(n)))


_forward = Loop(_forward_scalar, _forward_reference, uses=[advanced, cheapest, bits_at, state_at])
_back = Loop(_back_scalar, _back_reference, uses=[stepped_back, turned, bits_at, state_at])
