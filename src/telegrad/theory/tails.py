"""How heavy the tail of a vector's magnitudes is, and whether it decays as the MLMC paper's Assumption 3.5 says."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.errors import InputError
from telegrad.theory.ranges import COUNT, Range, check
from telegrad.theory.vectors import flat_vector

__all__ = ["DecayFit", "Tail", "fit_decay", "hill", "tail", "top_share"]

_POINTS = 20_000


@dataclass(frozen=True)
class DecayFit:
    """Least squares of log |v|_(j), j = 0, 1, …: `rate` r of |v|_(j) = |v|_(0) e^(−rj/2) (Assumption 3.5), and the
    exponent of |v|_(j) ∝ (j + 1)^(−exponent); each with the share of the variance of log |v| that it explains (R²).
    `omega_by_rate`: the ω of s-Top-k MLMC that (B2.4) gives for r; `omega`: the true one of this vector; s is 1 % of d.
    """

    rate: float
    rate_r2: float
    exponent: float
    exponent_r2: float
    omega_by_rate: float
    omega: float


@dataclass(frozen=True)
class Tail:
    """One vector's tail. `entries` d; `zeros`: share of entries that are 0; `hill`: tail index of |v| from its largest
    1 % (at least ten entries), `hill_error` its standard error; `top_share`: share of ‖v‖² in the largest 1 %;
    `kurtosis`: E v⁴/(E v²)² (3 for Gaussian entries); `norm`: ‖v‖.
    """

    entries: int
    zeros: float
    norm: float
    hill: float
    hill_error: float
    top_share: float
    kurtosis: float
    decay: DecayFit


def hill(v: Tensor, largest: int | None = None) -> tuple[float, float]:
    """Hill's estimate of the index α of a tail P(|v| > x) ~ x^(−α), and its standard error α/√k.

    From the k = `largest` largest magnitudes over the next one (default: 1 %, at least ten). Light tails give large
    values that grow with smaller k; infinite where these magnitudes are all equal. NaN for fewer than two non-zero
    entries. Raises `ConfigError` for `largest` below 1, `InputError` for a v that is not finite. Source: B. M. Hill,
    Annals of Statistics 3, 1975.
    """
    if largest is not None:
        check(largest=(largest, COUNT))
    magnitude = flat_vector(v).double().abs()
    magnitude = magnitude[magnitude > 0]
    n = len(magnitude)
    k = max(10, n // 100) if largest is None else largest
    k = min(k, n - 1)
    if k < 1:
        return math.nan, math.nan
    top = magnitude.topk(k + 1).values
    mean = float((top[:-1] / top[-1]).log().mean())
    alpha = 1 / mean if mean > 0 else math.inf
    return alpha, alpha / math.sqrt(k)


def top_share(v: Tensor, share: float = 0.01) -> float:
    """The share of ‖v‖² in the largest `share` of the entries (at least one); NaN for a zero vector. Raises
    `ConfigError` for a share that is not above 0 and up to 1, `InputError` for a v that is not finite.
    """
    check(share=(share, Range(high=1, open_low=True)))
    square = _unit(flat_vector(v).double()).square()
    total = float(square.sum())
    k = max(1, round(share * len(square))) if len(square) else 0
    return float(square.topk(k).values.sum()) / total if total > 0 else math.nan


def fit_decay(v: Tensor) -> DecayFit:
    """Fit both laws of decay to the sorted non-zero magnitudes. NaN where fewer than three entries are not zero. Raises
    `InputError` for a v that is not finite.
    """
    magnitude = flat_vector(v).double().abs().sort(descending=True).values
    d = len(magnitude)
    shown = magnitude[magnitude > 0]
    n = len(shown)
    if n < 3:
        return DecayFit(*[math.nan] * 6)
    ranks = torch.linspace(0, n - 1, min(n, _POINTS), dtype=torch.float64).round().long().unique()
    logs, j = shown[ranks].log(), ranks.double()
    slope, rate_r2 = _line(j, logs)
    power, exponent_r2 = _line((j + 1).log(), logs)
    rate, s = -2 * slope, max(1, round(0.01 * d))
    first = math.tanh(rate * s / 4)
    by_rate = math.tanh(rate * d / 4) / first - 1 if first > 0 else d / s - 1
    blocks = torch.nn.functional.pad(_unit(magnitude).square(), (0, -d % s)).view(-1, s).sum(dim=1).sqrt()
    omega = float(blocks.sum()) ** 2 / float(blocks.square().sum()) - 1
    return DecayFit(rate, rate_r2, -power, exponent_r2, by_rate, omega)


def _largest(v: Tensor) -> float:
    return float(v.abs().max()) if len(v) else 0.0


def _unit(v: Tensor) -> Tensor:
    """v over its largest magnitude: squares of very large and very small entries stay within float64."""
    largest = _largest(v)
    return v / largest if largest else v


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Slope of the least-squares line, and R²."""
    x, y = x - x.mean(), y - y.mean()
    spread, total = float(x.square().sum()), float(y.square().sum())
    slope = float((x * y).sum()) / spread if spread else 0.0
    return slope, slope**2 * spread / total if total > 0 else 1.0


def tail(v: Tensor) -> Tail:
    """All figures of a vector (any shape). Raises `InputError` for one that is empty or not finite."""
    flat = flat_vector(v).double()
    if not len(flat):
        raise InputError(f"a tensor of shape {tuple(v.shape)}: at least one entry is needed")
    square = _unit(flat).square()
    mean = float(square.mean())
    kurtosis = float(square.square().mean()) / mean**2 if mean else math.nan
    zeros = float((flat == 0).double().mean())
    norm = _largest(flat) * math.sqrt(float(square.sum()))
    return Tail(len(flat), zeros, norm, *hill(flat), top_share(flat), kurtosis, fit_decay(flat))
