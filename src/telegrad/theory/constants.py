"""The constants that theorems are stated in: one name, meaning, unit and range for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from telegrad.errors import ConfigError
from telegrad.theory.ranges import FROM_0, SHARE, Range

__all__ = ["CONSTANTS", "Constant", "check_constants", "parse_constants"]


@dataclass(frozen=True)
class Constant:
    """One constant: how papers write it, what it means, its unit, and the range in which it makes sense.

    `like`: the constant that it equals where all workers are alike, and that stands in for it where it is not given.
    """

    symbol: str
    meaning: str
    unit: str = "1"
    range: Range = FROM_0
    like: str | None = None


def _positive(symbol: str, meaning: str, unit: str = "1", high: float = math.inf, like: str | None = None) -> Constant:
    return Constant(symbol, meaning, unit, Range(high=high, open_low=True), like)


def _count(symbol: str, meaning: str, low: int = 1) -> Constant:
    return Constant(symbol, meaning, range=Range(low=low, whole=True))


_CURVATURE = "loss / length²"
CONSTANTS: dict[str, Constant] = {
    "L": _positive("L", "smoothness of f, the mean of all workers' objectives", _CURVATURE),
    "L_mean": _positive("L~", "quadratic mean of the workers' smoothness constants", _CURVATURE, like="L"),
    "L_max": _positive("L_max", "largest smoothness constant of a worker", _CURVATURE, like="L"),
    "L_sample": _positive("𝓛", "quadratic mean of the workers' largest smoothness of one sample", _CURVATURE, like="L"),
    "L_noise": Constant("L_σ", "mean-square smoothness of the gradient noise; 0 where noise is additive", _CURVATURE),
    "L_spread": Constant("L_±", "Hessian variance: how far the workers' Hessians differ", _CURVATURE),
    "L_sum": _positive("‖L⃗‖₁", "sum of the coordinates' smoothness constants", _CURVATURE),
    "mu": _positive("μ", "strong convexity (or Polyak-Łojasiewicz) constant of f", _CURVATURE),
    "mu_min": _positive("min μ_i", "least strong convexity of a worker's objective", _CURVATURE, like="mu"),
    "workers": _count("M", "number of workers"),
    "d": _count("d", "entries of the gradient"),
    "T": _count("T", "steps"),
    "sigma2": Constant("σ²", "E‖g_i − ∇f_i‖² of one worker's stochastic gradient", "gradient²"),
    "sigma_sum": Constant("‖σ⃗‖₁", "sum over coordinates of the noise's standard deviations", "gradient"),
    "xi2": Constant("ξ²", "bound on (1/M)Σ‖∇f_i − ∇f‖², the heterogeneity", "gradient²"),
    "optimum_energy": Constant(
        "(1/M)Σ‖∇f_i(x*)‖²", "how far the workers' gradients at the optimum differ", "gradient²"
    ),
    "G2": _positive("G²", "bound on E‖g‖²", "gradient²"),
    "gap": _positive("Δ", "f(x_1) − f*", "loss"),
    "distance": _positive("D", "‖x_1 − x*‖", "length"),
    "omega": Constant("ω", "E‖C(x) − x‖² ≤ ω‖x‖² of an unbiased compressor"),
    "omega_down": Constant("ω_M", "the same of the compressor of what the server sends"),
    "alpha": _positive("α", "E‖C(x) − x‖² ≤ (1 − α)‖x‖² of a contractive compressor", high=1.0),
    "eta": Constant("η", "relative bias ‖E C(x) − x‖ ≤ η‖x‖", range=SHARE),
    "spread": Constant("ω", "relative variance E‖C(x) − E C(x)‖² ≤ ω‖x‖²"),
    "p": _positive("p", "probability of a dense round", high=1.0),
    "batch": _count("B", "samples of a worker's gradient"),
    "samples": _count("m", "samples that a worker has"),
    "momentum": _positive("η", "weight of the new gradient", high=1.0),
    "local_steps": _count("H", "local steps a round"),
    "owners": _count("s", "workers that send each coordinate", low=2),
    "cohort": _count("c", "workers that take part in a round", low=2),
    "first_error": Constant("(1/M)Σ‖g_i − ∇f_i‖²", "squared error of what the server knows at the start", "gradient²"),
    "accuracy": _positive("ε", "target of E‖∇f‖²", "gradient²"),
    "lr": _positive("γ", "step size", "length² / loss"),
    "message_bits": _positive("b", "bits of one compressed message", "bits"),
}
"""All constants by the name that functions and the command line use."""


_AT_MOST = (
    *(("mu", "L"), ("mu", "L_max"), ("mu_min", "L_max")),
    *(("owners", "workers"), ("owners", "cohort"), ("cohort", "workers")),
)
"""Pairs of constants of which the first is at most the second."""


def check_constants(**given: float) -> None:
    """Raise `ConfigError` for the first constant that is not in its range, or that is above one that it cannot be above
    (μ ≤ L, and no more owners than workers).
    """
    for name, value in given.items():
        constant = CONSTANTS[name]
        if not constant.range.fits(value):
            raise ConfigError(f"{name}={value} ({constant.meaning}): {constant.range.instead_of(value)} is allowed")
    _check_order(given)


def _check_order(given: Mapping[str, float]) -> None:
    for small, large in _AT_MOST:
        if small in given and large in given and given[small] > given[large] * (1 + 1e-12):
            raise ConfigError(
                f"{small}={given[small]:g} ({CONSTANTS[small].meaning}) is above {large}={given[large]:g} "
                f"({CONSTANTS[large].meaning}): at most that is allowed"
            )


def parse_constants(texts: list[str]) -> dict[str, float]:
    """Constants from words such as `L=2` and `workers=8`. Raises `ConfigError` that says what is wrong."""
    found: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if name not in CONSTANTS:
            close = get_close_matches(name, CONSTANTS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(CONSTANTS)}"
            raise ConfigError(f"unknown constant {name!r}; {hint}")
        try:
            number = float(value) if equals else math.nan
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise ConfigError(f"{text!r}: write a constant as NAME=NUMBER, for example {name}=2")
        if name in found:
            raise ConfigError(f"{name} is given twice")
        found[name] = int(number) if CONSTANTS[name].range.whole and number.is_integer() else number
        check_constants(**found)
    return found
