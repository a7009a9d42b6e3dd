"""Subtractive dithering, entropy coded given the dither."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.compressors.inputs import not_finite
from telegrad.kernels.coding.rans import state_count
from telegrad.kernels.histograms.by_sixteenth_octave import magnitude_histogram
from telegrad.kernels.quantising.dither_frequencies import (
    FURTHEST,
    bucket_of,
    counted,
    expected_bits,
    expected_path_bits,
    shortest_bits,
)
from telegrad.kernels.quantising.dithered_density import dithered_density
from telegrad.kernels.quantising.dithered_rounding import dithered_symbols
from telegrad.kernels.selection.by_rank import SMALL
from telegrad.kernels.statistics.magnitudes import largest_magnitude, sums_of_squares
from telegrad.kernels.threads import kept
from telegrad.kernels.trellis.dithered_paths import DENSITIES, dithered_paths, path_error
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.bits import SCALARS
from telegrad.wire.code import Term
from telegrad.wire.integers import Integers
from telegrad.wire.positions import All
from telegrad.wire.values import Dithered, DitheredPaths
from telegrad.wire.values.base import round_scalar

__all__ = ["ECDQ"]


@register("ecdq", example="ecdq(bits=2)", source="A26; A28.6; Ziv 1985; Zamir and Feder 1992; Shlezinger et al. 2021")
@dataclass(frozen=True)
class ECDQ(Unbiased):
    """ECDQ: entropy-coded quantisation with a subtractive dither that both ends draw from a seed.

    C(x)_j = Δ (q_j − u_j), q_j = ⌊x_j/Δ + u_j + ½⌋, with the dither u_j uniform on [−½, ½) from a seed (A26.1).

    The error is uniform on [−Δ/2, Δ/2] and independent of x: unbiased, variance d Δ²/12 exactly, for every x (A26.2). q
    is coded with its probability given u under a coarse law of the entries that the message carries. Δ is chosen from x
    alone so that the message has about `bits` a coordinate, but never so large that ω exceeds 1.15 / (12 (4^R / 2πe −
    1/12)), R = .97 bits, or 1/R² where that is less: `omega` is this bound, beyond what entries of the laws of B14 need
    at so many bits; what needs more gets more. Nor so small that the largest entry is more than 2^19 steps from zero:
    then there are fewer bits. The bits of a vector of few distinct magnitudes jump with Δ: up to a tenth more than
    asked, or a third fewer. Below half a bit other compressors are better (B14), and entries that are zero become
    noise.

    `coder=trellis`: of the multiples of Δ/2 the path of least error through a machine of `states` (A28.6). For every x
    unbiased, and the law of the error the same; its square is .0649 Δ² with 8 states, .0613 Δ² with 256, for 1/12 Δ²,
    by simulation and for long vectors: `variance` is that prediction, and `exact` is false. At equal bits it errs 22 to
    30 % less than without from a bit on.

    Args:
        bits: bits a coordinate of the whole message, R.
        coder: scalar, or trellis.
        states: of the trellis: 8 or 256.

    References:
        Shlezinger et al., "UVeQFed: Universal Vector Quantization for Federated Learning", 2021,
            https://arxiv.org/abs/2006.03262
        Zamir and Feder, "On Universal Quantization by Randomized Uniform/Lattice Quantizers", 1992
        Ziv, "On Universal Quantization", 1985, https://doi.org/10.1109/TIT.1985.1057034
    """

    bits: float
    coder: Literal["scalar", "trellis"] = "scalar"
    states: Literal[8, 256] = 8

    @property
    def exact(self) -> bool:
        return self.coder == "scalar"

    def __post_init__(self) -> None:
        check_that(1e-6 <= self.bits <= 12, self, "bits", "bits a coordinate from 1e-6 to 12 are allowed")
        if self.coder != "trellis":
            check_that(self.states == 8, self, "states", "with coder=trellis another number is allowed")

    def omega(self, d: int) -> float:
        rate = 0.97 * self.bits
        excess = 4.0**rate / (2 * math.pi * math.e) - 1 / 12
        return min(1.15 / (12 * excess) if excess > 0 else math.inf, 1 / rate**2)

    def checks(self, v: Tensor) -> bool:
        return v.numel() >= SMALL and v.dtype != torch.float64

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        return self.solved(v).encode(key)

    def _variance(self, v: Tensor) -> float:
        return self.solved(v).error

    def solved(self, v: Tensor) -> Solved:
        """A flat, finite, non-zero v with the step that its message has the bits for."""
        law = _Law(v)
        return Solved(v, law, self._step(v, law), self._paths)

    @property
    def _paths(self) -> int:
        return self.states if self.coder == "trellis" else 1

    def _step(self, v: Tensor, law: _Law) -> float:
        """Δ as the message carries it."""
        d = len(v)
        root = math.sqrt(math.fsum(sums_of_squares(v, 65536).tolist()) / d)
        # A step rounded up must not exceed the bound.
        largest = root * math.sqrt(self.omega(d) / path_error(self._paths, d)) * (1 - 2.0**-23)
        low, high = math.log(law.top / FURTHEST * 2), math.log(largest)
        target = self.bits * d - _overhead(d, v.dtype)
        if target <= 0:  # the header alone is longer: no step makes the message short enough
            return round_scalar(largest, v.dtype, None) or 2.0**-149
        tolerance = 5e-4 * target

        def excess(goal: float, at: float) -> float:
            return d * law.rate(math.exp(at)) - goal

        # As a normal vector would have it: ½ log2(1 + 12 σ²/Δ²) bits.
        slope = math.log(2) / d  # a bit more an entry halves the step
        guess = math.log(root) + math.log(12 / math.expm1(2 * math.log(2) * target / d)) / 2
        middle = _solve(partial(excess, target), low, high, tolerance, guess, slope)
        # A perfect coder's rate is corrected by what ours takes beyond it, near the solution: once where that changes
        # little, and else, as for entries that are alike, until the step stays, since it depends on the step.
        enough = 0.05 if self._paths == 1 and d >= SMALL else 0.01
        for _ in range(8):
            beyond = law.nbits(math.exp(middle), self._paths) - d * law.rate(math.exp(middle))
            near = max(low, middle - 1.0), min(high, middle + 1.0)
            before, middle = middle, _solve(partial(excess, target - beyond), *near, tolerance, middle, slope)
            if abs(middle - before) < enough:
                break
            enough = 0.01
        return round_scalar(math.exp(middle), v.dtype, None) or 2.0**-149


@dataclass(frozen=True)
class Solved:
    """A vector, the law of its magnitudes, and its step Δ."""

    v: Tensor
    law: _Law
    step: float
    states: int = 1

    @property
    def error(self) -> float:
        """E‖C(v) − v‖² = d Δ² / 12, or what paths leave of it."""
        return len(self.v) * self.step**2 * path_error(self.states, len(self.v))

    @property
    def nbits(self) -> float:
        """The expected length of the message in bits."""
        return self.law.nbits(self.step, self.states) + _overhead(len(self.v), self.v.dtype)

    def encode(self, key: Key) -> Encoded:
        """The message with the dither of this key."""
        ratio, counts = self.law.in_steps(self.step)
        seed = key.fold(role="dither").to_int()
        if self.states > 1:
            step = self.step if key.fold(role="side").to_int() & 1 else -self.step
            paths = dithered_paths(self.v, step, seed, self.states)
            return Encoded((Term(All(len(self.v)), DitheredPaths(paths, self.states, seed, step, ratio, counts)),))
        symbol = dithered_symbols(self.v, self.step, seed, self.law.top)
        return Encoded((Term(All(len(self.v)), Dithered(symbol, seed, self.step, ratio, counts)),))


def _overhead(d: int, dtype: torch.dtype) -> float:
    """The bits of a message beside its symbols and its law: header, seed, step and the states of the coder."""
    return 8 * (12 + 13 + SCALARS[dtype].size) + 24 * state_count(d)


def _solve(
    excess: Callable[[float], float], low: float, high: float, tolerance: float, start: float, slope: float
) -> float:
    """Where a falling excess is within the tolerance of 0, or changes its sign; an end where it does not.

    From `start`, where it falls by about 1 / `slope`, a few secants may do. Else the Illinois form of false position
    (Dowell and Jarratt 1971), at most 40 evaluations.
    """
    if low < start < high:
        there = excess(start)
        other = start + max(-0.5, min(0.5, there * slope))
        for _ in range(5):
            if abs(there) <= tolerance or not low < other < high:
                break
            at = excess(other)
            if at == there:
                break
            start, there, other = other, at, other - at * (other - start) / (at - there)
        if abs(there) <= tolerance:
            return start
    above, below = excess(low), excess(high)
    if above <= 0 or below >= 0:
        return low if above <= 0 else high
    middle, last = (low + high) / 2, 0.0
    for number in range(38):
        share = above / (above - below)
        # Every third step halves the bracket, for jumps.
        middle = (low + high) / 2 if number % 3 == 2 else low + share * (high - low)
        at = excess(middle)
        if abs(at) <= tolerance or high - low < 1e-4:
            break
        if at > 0:
            low, above, below = middle, at, below / 2 if last > 0 else below
        else:
            high, below, above = middle, at, above / 2 if last < 0 else above
        last = at
    return middle


_MANY = 16
_INSIDE = 2.0 ** (3 / 32)
"""Where many entries are as large as the largest, a law that ended there would give them half a cell, up to 1.4 bits
each: it ends beyond them.
"""

_FALLS = 2.0 ** (-np.arange(800) / 16)


class _Law:
    """How many entries lie between edges that fall from `top`, by 2^−1/16 (`fine`) and 2^−1/4 (`counts`)."""

    def __init__(self, v: Tensor) -> None:
        self.d, self.top, self._rates = len(v), largest_magnitude(v), dict[float, float]()
        if not math.isfinite(self.top):
            raise not_finite(v)
        self.fine = magnitude_histogram(v, self.top)
        inside = self.top * _INSIDE
        if self.fine[0] >= max(_MANY, self.d / 8) and inside <= torch.finfo(v.dtype).max:
            self.top, self.fine = inside, magnitude_histogram(v, inside)
        self.counts = self.fine.reshape(-1, 4).sum(1)

    def in_steps(self, step: float) -> tuple[float, np.ndarray]:
        """(the largest magnitude in steps, rounded up to float32; the counts, to four bits).

        Below 1/256 of a step, and where less than a sixteenth of the entries is left, there is but one count.
        """
        ratio = float(np.nextafter(np.float32(self.top / step), np.float32(np.inf)))
        fine = 4 * math.log2(max(256 * ratio, 1.0)) + 1
        bulk = int(np.searchsorted(self.counts.cumsum(), self.d - self.d // 16)) + 2
        size = int(min(100.0, fine, bulk))
        counts = np.append(self.counts[: size - 1], self.counts[size - 1 :].sum())
        return ratio, counted(bucket_of(counts))

    def rate(self, step: float) -> float:
        """The bits an entry of a perfect coder that knows the fine law: I(v; v + U) = h(v + U) − log2 Δ."""
        if step not in self._rates:
            edges, reached = self._reached
            first = int(edges.searchsorted(step / 64))  # what is below is as good as zero
            edge, share = np.zeros((2, len(edges) - first + 1))
            np.divide(edges[first:], step, out=edge[1:])
            share[1:] = reached[first:]
            at, density = dithered_density(edge, share)  # between these points it hardly bends
            price = density * np.log2(density)
            # Not `@`: a linear algebra library adds up in another order on every kind of processor.
            self._rates[step] = -float(((price[1:] + price[:-1]) * (at[1:] - at[:-1])).sum())
        return self._rates[step]

    @kept
    def _reached(self) -> tuple[np.ndarray, np.ndarray]:
        """Increasing edges of the fine law, and the shares of the magnitudes up to each."""
        return (self.top * _FALLS)[::-1], self.fine[::-1].cumsum() / self.d

    def nbits(self, step: float, states: int = 1) -> float:
        """The expected length of the symbols and of the law, through a trellis of so many states."""
        (ratio, counts), bits = self.in_steps(step), shortest_bits(self.d)
        if states > 1:
            each = expected_path_bits(ratio, counts, bits, self.fine, DENSITIES[states])
        else:
            each = expected_bits(ratio, counts, bits, self.fine)
        return self.d * each + 8 * Integers(bucket_of(counts)).nbytes
