"""Subtractive dithering, entropy coded given the dither."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded, not_finite
from telegrad.kernels.dithered import dithered_symbols
from telegrad.kernels.dithering import FURTHEST, bucket_of, counted, expected_bits, shortest_bits
from telegrad.kernels.magnitudes import largest_magnitude, sums_of_squares
from telegrad.kernels.octaves import magnitude_histogram
from telegrad.kernels.rans import state_count
from telegrad.kernels.selection import SMALL
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.integers import Integers
from telegrad.wire.positions import All
from telegrad.wire.values import Dithered
from telegrad.wire.values.base import round_scalar, scalar_nbytes

__all__ = ["ECDQ"]


@register("ecdq", example="ecdq(bits=2)", source="A26; Ziv 1985; Zamir and Feder 1992; Shlezinger et al. 2021")
@dataclass(frozen=True)
class ECDQ(Compressor):
    """C(x)_j = Δ (q_j − u_j), q_j = ⌊x_j/Δ + u_j + ½⌋, with the dither u_j uniform on [−½, ½) from a seed (A26.1).

    The error is uniform on [−Δ/2, Δ/2] and independent of x: unbiased, variance d Δ²/12 exactly, for every x (A26.2). q
    is coded with its probability given u under a coarse law of the entries that the message carries. Δ is chosen from x
    alone so that the message has about `bits` a coordinate, but never so large that ω exceeds 1.15 / (12 (4^R / 2πe −
    1/12)), R = .97 bits, or 1/R² where that is less: `omega` is this bound, beyond what entries of the laws of B14 need
    at so many bits; what needs more gets more. Nor so small that the largest entry is more than 2^19 steps from zero:
    then there are fewer bits. Below half a bit other compressors are better (B14), and entries that are zero become
    noise.
    """

    bits: float

    unbiased = True
    random = True

    def __post_init__(self) -> None:
        check_that(0 < self.bits <= 12, self, "bits", "bits a coordinate above 0 and up to 12 are allowed")

    def omega(self, d: int) -> float:
        rate = 0.97 * self.bits
        excess = 4.0**rate / (2 * math.pi * math.e) - 1 / 12
        return min(1.15 / (12 * excess) if excess > 0 else math.inf, 1 / rate**2)

    def alpha(self, d: int) -> float:
        return max(0.0, 1 - self.omega(d))

    def checks(self, v: Tensor) -> bool:
        return v.numel() >= SMALL and v.dtype != torch.float64

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        return self.solved(v).encode(key)

    def _variance(self, v: Tensor) -> float:
        return self.solved(v).error

    def solved(self, v: Tensor) -> Solved:
        """A flat, finite, non-zero v with the step that its message has the bits for."""
        law = _Law(v)
        return Solved(v, law, self._step(v, law))

    def _step(self, v: Tensor, law: _Law) -> float:
        """Δ as the message carries it."""
        d = len(v)
        root = math.sqrt(math.fsum(sums_of_squares(v, 65536).tolist()) / d)
        # A step rounded up must not exceed the bound.
        largest = root * math.sqrt(12 * self.omega(d)) * (1 - 2.0**-23)
        low, high = math.log(law.top / FURTHEST * 2), math.log(largest)
        target = self.bits * d - _overhead(d, v.dtype)
        if target <= 0:  # the header alone is longer: no step makes the message short enough
            return round_scalar(largest, v.dtype, None) or 2.0**-149
        tolerance = 1e-4 * d
        middle = _solve(lambda at: law.nbits(math.exp(at)) - target, low, high, tolerance)
        # The law is coarse: what it says of itself is corrected by what it costs the entries, near the solution.
        goal = target - law.true_nbits(math.exp(middle)) + law.nbits(math.exp(middle))
        near = max(low, middle - 0.3), min(high, middle + 0.3)
        middle = _solve(lambda at: law.nbits(math.exp(at)) - goal, *near, tolerance)
        return round_scalar(math.exp(middle), v.dtype, None) or 2.0**-149


@dataclass(frozen=True)
class Solved:
    """A vector, the law of its magnitudes, and its step Δ."""

    v: Tensor
    law: _Law
    step: float

    @property
    def error(self) -> float:
        """E‖C(v) − v‖² = d Δ² / 12."""
        return len(self.v) * self.step**2 / 12

    @property
    def nbits(self) -> float:
        """The expected length of the message in bits."""
        return self.law.true_nbits(self.step) + _overhead(len(self.v), self.v.dtype)

    def encode(self, key: Key) -> Encoded:
        """The message with the dither of this key."""
        ratio, counts = self.law.in_steps(self.step)
        seed = key.fold(role="dither").to_int()
        symbol = dithered_symbols(self.v, self.step, seed, self.law.top)
        return Encoded((Term(All(len(self.v)), Dithered(symbol, seed, self.step, ratio, counts)),))


def _overhead(d: int, dtype: torch.dtype) -> float:
    """The bits of a message beside its symbols and its law: header, seed, step and the states of the coder."""
    return 8 * (12 + 13 + scalar_nbytes(dtype)) + 24 * state_count(d)


def _solve(excess: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """Where a falling excess is within the tolerance of 0, or changes its sign; an end where it does not.

    The Illinois form of false position (Dowell and Jarratt 1971), at most 40 evaluations.
    """
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


class _Law:
    """How many entries lie between edges that fall from the largest, by 2^−1/16 (`fine`) and 2^−1/4 (`counts`)."""

    def __init__(self, v: Tensor) -> None:
        self.d, self.top = len(v), largest_magnitude(v)
        if not math.isfinite(self.top):
            raise not_finite(v)
        self.fine = magnitude_histogram(v, self.top)
        self.counts = self.fine.reshape(-1, 4).sum(1)
        self._known: dict[float, float] = {}

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

    def nbits(self, step: float) -> float:
        """The expected length of the symbols and of the law, were the entries spread as the law says."""
        if step not in self._known:  # a solver asks for the same ends again
            self._known[step] = self._nbits(step, None)
        return self._known[step]

    def true_nbits(self, step: float) -> float:
        """The same of the entries as they are spread."""
        return self._nbits(step, self.fine)

    def _nbits(self, step: float, true: np.ndarray | None) -> float:
        ratio, counts = self.in_steps(step)
        each = expected_bits(ratio, counts, shortest_bits(self.d), true)
        return self.d * each + 8 * Integers(bucket_of(counts)).nbytes
