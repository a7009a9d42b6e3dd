"""The largest entries as they are, and entropy-coded EDEN for what is left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.compressors.eden_rate import shortest_rotated
from telegrad.compressors.rotated_coder import RotatedCoder
from telegrad.kernels.coding.scatter import taken
from telegrad.kernels.histograms.by_ratio import MagnitudeSums, entries_from, magnitude_sums, smallest_in
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Code, Term
from telegrad.wire.entropy_coded import table_bits
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats, Grid, Values

__all__ = ["HeadTail", "Heads", "encode_with"]

_HALVINGS = 6
_MERGED = 4
_CLOSER = 6
# From so many on, magnitudes are entropy coded; fewer have a Golomb-Rice code.
_WORTH_CODING = 512
_LARGEST_SYMBOL = 2.0**24


@register("head_tail", example="head_tail(bits=2)", source="A27; E; Horváth and Richtárik 2021 (induced compressors)")
@dataclass(frozen=True)
class HeadTail(Unbiased):
    """Head and tail: the largest entries kept coarsely, and entropy-coded EDEN for what they leave.

    C(x) = H + Q(x − H): H holds the k0 largest entries, coarsely, and Q is entropy-coded EDEN (A27.1, A21.5).

    H rounds |x_j| >= t to multiples of t, t/2, … or t/32; Q repairs that. The whole message has `bits` a coordinate;
    t and the step minimise the prediction ‖x − H‖² ω_Q(bits − bits(H) / d) over a histogram of magnitudes, sixteen
    steps an octave (A27.2). `coder=trellis`: the tail in a trellis code of so many `states` (A28). Without a head this
    is eden with the same coder, so it is predicted to be no worse. `omega` is EDEN's, `variance` the prediction: both
    for large d, and unbiased as far as EDEN is.

    Args:
        bits: bits a coordinate of the whole message.
        coder: of the tail: entropy or trellis.
        states: of the trellis: 8 or 256.

    References:
        Horváth and Richtárik, "A Better Alternative to Error Feedback for Communication-Efficient Distributed
            Learning", 2021, https://arxiv.org/abs/2006.11077
    """

    bits: float
    coder: Literal["entropy", "trellis"] = "entropy"
    states: Literal[8, 256] = 8

    exact = False

    def __post_init__(self) -> None:
        most = self.tail.most
        check_that(0 < self.bits <= most, self, "bits", f"bits a coordinate above 0 and up to {most:g} are allowed")
        if self.coder != "trellis":
            check_that(self.states == 8, self, "states", "with coder=trellis another number is allowed")

    @property
    def tail(self) -> RotatedCoder:
        """The coder of what the head leaves."""
        return RotatedCoder(self.coder, self.states)

    def omega(self, d: int) -> float:
        return float(self.tail.omega(self.bits * d, d))

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        return encode_with(self._best(v), v, self.bits, key)

    def _variance(self, v: Tensor) -> float:
        return self._best(v).error

    def _best(self, v: Tensor) -> Head:
        return Heads(magnitude_sums(v), v.dtype).best(self.bits * len(v), self.tail)


@dataclass(frozen=True)
class Head:
    """Which head pays: the entries from the magnitude t = `lowest` · max |v| on, rounded to multiples of
    t / 2^halvings, and the squared error that is predicted with this coder of the tail; none where `lowest` is
    infinite.
    """

    lowest: float
    halvings: int
    error: float
    tail: RotatedCoder


def encode_with(chosen: Head, v: Tensor, bits: float, key: Key) -> Encoded:
    """v with this head, in `bits` a coordinate."""
    d, budget = len(v), bits * len(v)
    if math.isinf(chosen.lowest):
        return Encoded((chosen.tail.term(v, budget, v.dtype, key),))
    index = entries_from(v, chosen.lowest)
    large = taken(v, index).double()
    head = Term(IndexSet(d, index), _rounded_head(large, chosen.halvings, v.dtype))
    rest = v.to(torch.float64 if v.dtype == torch.float64 else torch.float32, copy=True)
    rest[index] = (large - head.values.numbers()).to(rest.dtype)
    if not bool(rest.any()):
        return Encoded((head,))
    left = budget - Code((), v.dtype, (head,)).nbits + Code((), v.dtype).nbits
    return Encoded((head, chosen.tail.term(rest, left, v.dtype, key.fold(role="tail"))))


def _rounded_head(x: Tensor, halvings: int, dtype: torch.dtype) -> Values:
    """x to the nearest multiples of the smallest |x| / 2^halvings; as it is where no message could hold that step."""
    step = Grid(x[:0].long(), float(x.abs().min()) / 2**halvings).rounded(dtype, None).scale
    if not step > 0.0:
        return Floats(x).rounded(dtype, None)
    magnitude = (x.abs() / step).round().clamp(min=1)
    return Grid((magnitude * x.sign()).to(torch.int64), step)


class Heads:
    """A histogram of magnitudes, sixteen steps to an octave, from which the best head for any budget is predicted."""

    def __init__(self, histogram: MagnitudeSums, dtype: torch.dtype) -> None:
        counts, energies = (_merged(sums)[::-1].cumsum() for sums in (histogram.count, histogram.square))
        # From the highest step downward.
        used = np.flatnonzero(np.diff(counts, prepend=0))
        self.used = used[counts[used] < histogram.d]
        self.d, self.dtype, self.largest = histogram.d, dtype, histogram.largest
        self.counts, self.kept, self.energy = counts[self.used].astype(np.float64), energies[self.used], energies[-1]
        # The lower ends of the steps, relative to the largest magnitude; a step is 1/16 of its octave.
        self.lower = smallest_in(_MERGED * (len(counts) - 1 - self.used))

    def best(self, budget: float, tail: RotatedCoder) -> Head:
        """The head with the least predicted error in a message of `budget` bits, `tail` the coder of what is left."""
        best = Head(math.inf, 0, float(self.energy * self._omega(budget, tail)), tail)
        k, places = self.counts, _index_bits(self.d, self.counts)
        most = min(0.9 * budget, budget - shortest_rotated(self.d, self.dtype))
        # The magnitudes beyond t about follow a power law, whose differential entropy tells where to look closer.
        falls = np.log(self.lower)
        excess = np.cumsum(np.diff(k, prepend=0.0) * falls) / np.maximum(k, 1.0) - falls
        differential = np.log2(np.maximum(excess, 0.05)) + (1 + excess) / np.log(2.0)
        for halvings in range(_HALVINGS):
            rounding = k * (self.lower * self.largest / 2**halvings) ** 2 / 12
            left = np.maximum(self.energy - self.kept, 0.0) + rounding
            bits = places + (1 + np.maximum(halvings + differential, 0.2)) * k + 80
            allowed = (bits <= most) & (2.0**halvings <= _LARGEST_SYMBOL * self.lower)
            hopeful = np.flatnonzero(allowed)
            error = left[hopeful] * self._omega(budget - bits[hopeful], tail)
            for at in hopeful[np.argsort(error)][:_CLOSER]:
                dear = places[at] + k[at] + self._symbol_bits(int(at), halvings) + 80
                if dear <= most:
                    exact = float(left[at] * self._omega(budget - dear, tail))
                    if exact < best.error:
                        best = Head(float(self.lower[at]), halvings, exact, tail)
        return best

    def _omega(self, budget: float | np.ndarray, tail: RotatedCoder) -> np.ndarray:
        return tail.omega(budget, self.d, self.dtype)

    def _symbol_bits(self, at: int, halvings: int) -> float:
        """The bits of the magnitudes of the head down to step number `at`, in steps of t / 2^halvings."""
        step = self.lower[at] / 2**halvings
        low = self.lower[at::-1] / step
        count = np.diff(self.counts[: at + 1], prepend=0.0)[::-1]
        width = 2.0 ** np.floor(np.log2(low)) / 16
        fine = width < 2.0
        # Steps of the histogram that are narrower than symbols are shared out over these; wider ones hold many.
        edges = np.append(low[fine], low[fine][-1] + width[fine][-1]) if fine.any() else np.zeros(1)
        cells = np.arange(np.floor(edges[0]), np.ceil(edges[-1]) + 1) + 0.5
        shared = np.diff(np.interp(cells, edges, np.append(0.0, count[fine].cumsum())), prepend=0.0)
        groups = np.concatenate([shared, count[~fine]])
        groups, total = groups[groups > 0], self.counts[at]
        bits = float((groups * np.log2(total / groups)).sum() + (count[~fine] * np.log2(width[~fine])).sum())
        top, mean = 1.0 / step, float((count * (low + width / 2)).sum() / total)
        rice = max(bits, float(total) * (math.log2(max(mean, 1.0)) + 1.5))
        return rice if total < _WORTH_CODING else min(rice, bits + table_bits(top))


def _merged(sums: np.ndarray) -> np.ndarray:
    """Sums over sixteenths of an octave from those over 64ths."""
    return np.add.reduceat(sums, np.arange(0, len(sums), _MERGED))


def _index_bits(d: int, k: np.ndarray) -> np.ndarray:
    """log2 C(d, k), and the 3 % that the places' coding takes above it."""
    choose = torch.lgamma(torch.tensor([d + 1.0], dtype=torch.float64)) - torch.lgamma(torch.from_numpy(k + 1.0))
    choose = choose - torch.lgamma(torch.from_numpy(d - k + 1.0))
    return 1.03 * choose.numpy() / np.log(2.0)
