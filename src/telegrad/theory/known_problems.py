"""The learning rate that theory gives a method on a problem whose constants are known: `lr="theory"`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from telegrad.errors import ConfigError
from telegrad.methods.base import Method
from telegrad.theory import step_sizes

__all__ = ["Problem", "problem_of", "theory_rate"]


@dataclass(frozen=True)
class Problem:
    """Smoothness and strong convexity of f, and of every worker's f_i (F1)."""

    L: float
    mu: float
    L_each: tuple[float, ...]
    mu_each: tuple[float, ...]

    @property
    def L_max(self) -> float:
        """max_i L_i."""
        return max(self.L_each)

    @property
    def L_mean(self) -> float:
        """The quadratic mean of the L_i."""
        return math.sqrt(sum(own**2 for own in self.L_each) / len(self.L_each))


def problem_of(task: Any, shares: Sequence[Tensor]) -> Problem:
    """The constants of a task over the workers' rows. Raises `ConfigError` where it does not know its curvature."""
    if not hasattr(task, "curvature"):
        raise ConfigError(
            f'lr="theory": the constants of {type(task).__name__} are not known; quadratic and logistic workloads '
            "know theirs. Give a number, for example lr=0.1"
        )
    whole, each = task.curvature(), [task.curvature(share) for share in shares]
    return Problem(whole[0], whole[1], tuple(own[0] for own in each), tuple(own[1] for own in each))


def theory_rate(method: Method, problem: Problem, d: int) -> float:
    """The step size of (F2) for `method` on vectors of d entries, with its compressor's constants at d.

    Raises `ConfigError` for methods, or compressors, to which theory gives none.
    """
    name, compressor, workers = method.spec_name, getattr(method, "compressor", None), len(problem.L_each)
    found = _RATES.get(name)
    if found is None:
        raise ConfigError(f'lr="theory": no step size is known for {name}; known are {", ".join(sorted(_RATES))}')
    if name not in _BIASED and not getattr(compressor, "unbiased", True):
        raise ConfigError(
            f'lr="theory": theory gives {method} no step size, since {compressor} is biased; such compressors go with '
            "ef21(…), or give a number, for example lr=0.1"
        )
    rate = found(method, problem, compressor, d, workers)
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f'lr="theory": theory gives {method} no step size at {d} entries; give a number')
    return rate


def _omega(compressor: Any, d: int) -> float:
    return float(compressor.omega(d))


_BIASED = ("ef21", "ef21_sgdm", "ef_bv")
"""Whose theory takes biased compressors."""

_RATES: dict[str, Callable[[Any, Problem, Any, int, int], float]] = {
    "sgd": lambda m, p, c, d, n: step_sizes.sgd_any_data(L=p.L, L_max=p.L_max, workers=n, omega=_omega(c, d)),
    "ef21": lambda m, p, c, d, n: step_sizes.ef21(L=p.L, L_mean=p.L_mean, alpha=c.alpha(d)),
    "ef21_sgdm": lambda m, p, c, d, n: step_sizes.ef21_sgdm(
        L=p.L, L_mean=p.L_mean, alpha=c.alpha(d), momentum=m.momentum
    ),
    "ef_bv": lambda m, p, c, d, n: step_sizes.ef_bv(
        L=p.L, L_mean=p.L_mean, eta=c.eta(d), spread=c.spread(d), workers=n
    ),
    "diana": lambda m, p, c, d, n: step_sizes.diana(L=p.L, L_max=p.L_max, omega=_omega(c, d), workers=n),
    "adiana": lambda m, p, c, d, n: step_sizes.adiana(L_max=p.L_max, mu=p.mu, omega=_omega(c, d), workers=n)["lr"],
    "marina": lambda m, p, c, d, n: step_sizes.marina(
        L=p.L, L_mean=p.L_mean, omega=_omega(c, d), workers=n, p=m.probability
    ),
    "dasha": lambda m, p, c, d, n: step_sizes.dasha(L=p.L, L_mean=p.L_mean, omega=_omega(c, d), workers=n),
    "scaffnew": lambda m, p, c, d, n: 1 / p.L_max,
    "compressed_scaffnew": lambda m, p, c, d, n: 2 / (p.L_max + min(p.mu_each)),
    "tamuna": lambda m, p, c, d, n: 2 / (p.L_max + min(p.mu_each)),
    "shadowheart": lambda m, p, c, d, n: step_sizes.shadowheart(L=p.L),
}
