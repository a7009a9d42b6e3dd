"""The largest entries as they are, and entropy-coded EDEN for what is left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.compressors.eden import Eden, cells_rate, entropy_coded_term
from telegrad.kernels.gaussian import entropy_coded_omega
from telegrad.kernels.hadamard import block_sizes
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Code, Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats, Grid, Values

__all__ = ["HeadTail"]

_HALVINGS = 6
_LARGEST_SYMBOL = 2.0**24


@register("head_tail", example="head_tail(bits=2)", source="A27; E; Horváth and Richtárik 2021 (induced compressors)")
@dataclass(frozen=True)
class HeadTail(Compressor):
    """C(x) = H + Q(x − H): H holds the k0 largest entries, coarsely, and Q is entropy-coded EDEN (A27.1, A21.5).

    H rounds |x_j| >= t to multiples of t, t/2, … or t/32; Q repairs that. The whole message has `bits` a coordinate;
    t and the step minimise the prediction ‖x − H‖² ω_Q(bits − bits(H) / d) over a histogram of magnitudes, sixteen
    steps an octave (A27.2). Without a head this is eden(coder=entropy), so it is predicted to be no worse. `omega` is
    EDEN's, `variance` the prediction: both for large d, and unbiased as far as EDEN is.
    """

    bits: float

    unbiased = True
    random = True
    exact = False

    def __post_init__(self) -> None:
        check_that(0 < self.bits <= 12, self, "bits", "bits a coordinate above 0 and up to 12 are allowed")

    def omega(self, d: int) -> float:
        return Eden(self.bits, "entropy").omega(d)

    def alpha(self, d: int) -> float:
        return max(0.0, 1 - self.omega(d))

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d, budget = len(v), self.bits * len(v)
        steps = _magnitude_steps(v)
        chosen, halvings, _ = _best_head(v, steps, budget)
        index = (steps >= chosen).nonzero().squeeze(1)
        if len(index) == 0:
            return Encoded((entropy_coded_term(v, budget, v.dtype, key),))
        head = Term(IndexSet(d, index), _rounded_head(v[index].double(), halvings, v.dtype))
        rest = v.to(torch.float64 if v.dtype == torch.float64 else torch.float32, copy=True)
        rest[index] = (v[index].double() - head.values.numbers()).to(rest.dtype)
        if not bool(rest.any()):
            return Encoded((head,))
        left = budget - Code((), v.dtype, (head,)).nbits + Code((), v.dtype).nbits
        return Encoded((head, entropy_coded_term(rest, left, v.dtype, key.fold(role="tail"))))

    def _variance(self, v: Tensor) -> float:
        return _best_head(v, _magnitude_steps(v), self.bits * len(v))[2]


def _rounded_head(x: Tensor, halvings: int, dtype: torch.dtype) -> Values:
    """x to the nearest multiples of the smallest |x| / 2^halvings; as it is where no message could hold that step."""
    step = Grid(x[:0].long(), float(x.abs().min()) / 2**halvings).rounded(dtype, None).scale
    if not step > 0.0:
        return Floats(x).rounded(dtype, None)
    magnitude = (x.abs() / step).round().clamp(min=1)
    return Grid((magnitude * x.sign()).to(torch.int64), step)


def _magnitude_steps(v: Tensor) -> Tensor:
    """Sixteen steps to an octave, increasing with |v|: the leading bits of |v| / max |v| as a float32; int64."""
    magnitude = v.double().abs()
    return ((magnitude / magnitude.max()).float().view(torch.int32) >> 19).to(torch.int64)


def _best_head(v: Tensor, steps: Tensor, budget: float) -> tuple[int, int, float]:
    """(the lowest step of the head, halvings of t, the predicted squared error); a step above all is no head."""
    d, squares = len(v), v.double().square()
    counts = torch.bincount(steps).flip(0).cumsum(0).cpu().numpy()
    energies = torch.bincount(steps, weights=squares).flip(0).cumsum(0).cpu().numpy()
    used = np.flatnonzero(np.diff(counts, prepend=0))  # the first of `counts` is the highest step
    used = used[counts[used] < d]
    k, energy, kept = counts[used].astype(np.float64), float(energies[-1]), energies[used]
    lower = 2.0 ** -(used / 16)  # t / max |x|, to within a step
    excess = np.cumsum(np.diff(k, prepend=0.0) * np.log(lower)) / np.maximum(k, 1.0) - np.log(lower)
    best = len(counts), 0, energy * float(_tail_omega(np.array([budget]), d, v.dtype)[0])
    for halvings in range(_HALVINGS):
        # The magnitudes beyond t about follow a power law: of its differential entropy, log2(step) is not sent.
        entropy = halvings + np.log2(np.maximum(excess, 0.05)) + (1 + excess) / np.log(2.0)
        bits = _index_bits(d, k) + (1 + np.maximum(entropy, 0.2)) * k + 80
        rounding = k * (lower * float(v.double().abs().max()) / 2**halvings) ** 2 / 12
        error = (np.maximum(energy - kept, 0.0) + rounding) * _tail_omega(budget - bits, d, v.dtype)
        error[(bits > 0.9 * budget) | (2.0**halvings > _LARGEST_SYMBOL * lower)] = np.inf
        if len(error) and error.min() < best[2]:
            at = int(error.argmin())
            best = len(counts) - 1 - int(used[at]), halvings, float(error[at])
    return best


def _tail_omega(budget: np.ndarray, d: int, dtype: torch.dtype) -> np.ndarray:
    rates = np.array([cells_rate(float(bits), d, dtype) for bits in budget])
    return np.minimum(entropy_coded_omega(rates), max(block_sizes(d)) - 1.0)


def _index_bits(d: int, k: np.ndarray) -> np.ndarray:
    """log2 C(d, k), and the 3 % that the places' coding takes above it."""
    choose = torch.lgamma(torch.tensor([d + 1.0], dtype=torch.float64)) - torch.lgamma(torch.from_numpy(k + 1.0))
    choose = choose - torch.lgamma(torch.from_numpy(d - k + 1.0))
    return 1.03 * choose.numpy() / np.log(2.0)
