"""Stochastic differential equations of distributed SGD, compressed SGD and sign SGD, and the algorithms themselves.

All workers have the same objective and noise of their own; `Setting` says what noise. Time is t = (learning rate) ·
(step). An `SDE` has diagonal noise: dX = drift(X) dt + spread(X) dW, coordinate by coordinate. `solve` integrates it by
Euler-Maruyama for many replicas at once; `iterate` runs the discrete algorithm that it stands for. Arrays are float64
of shape (replicas, d). Sources: D1, D2; Compagnoni et al., AISTATS 2025, whose equations are derived anew here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from telegrad.errors import ConfigError, DivergedError
from telegrad.random import Key
from telegrad.theory.noise_laws import Gaussian, NoiseLaw
from telegrad.theory.ranges import ABOVE_0, COUNT, FROM_0, FROM_1, Range, check, check_all

__all__ = ["SDE", "Setting", "dcsgd", "dsgd", "dsign", "iterate", "solve", "with_curvature"]

Field = Callable[[np.ndarray], np.ndarray]
_BLOWN_UP = 1e100


@dataclass(frozen=True)
class Setting:
    """Learning rate η, `workers` N, `batch` B; noise of the law `noise` and of scale `sigma`/√B in each coordinate of a
    worker's gradient; `omega` of the workers' compressor. Raises `ConfigError` for values out of range.
    """

    lr: float
    workers: int = 1
    batch: int = 1
    sigma: float = 1.0
    noise: NoiseLaw = field(default_factory=Gaussian)
    omega: float = 0.0

    def __post_init__(self) -> None:
        ranges = {"lr": ABOVE_0, "workers": FROM_1, "batch": FROM_1, "sigma": FROM_0, "omega": FROM_0}
        check_all(vars(self), ranges)
        if not isinstance(self.noise, NoiseLaw):
            raise ConfigError(f"noise={self.noise!r}: a law such as Gaussian() or StudentT(3.0) is allowed")

    @property
    def scale(self) -> float:
        """σ/√B, the scale of a worker's noise in a coordinate."""
        return self.sigma / math.sqrt(self.batch)

    @property
    def noise_variance(self) -> float:
        """The variance of a worker's noise in a coordinate. Raises `ConfigError` where it is infinite: the equations of
        SGD and compressed SGD do not exist then.
        """
        if self.sigma and math.isinf(self.noise.variance):
            raise ConfigError(f"{self.noise} has no variance: only sign compression has an SDE under such noise")
        return self.scale**2 * self.noise.variance if self.sigma else 0.0


@dataclass(frozen=True)
class SDE:
    """dX = drift(X) dt + spread(X) dW, one Brownian motion a coordinate; both map (replicas, d) to the same shape."""

    drift: Field
    spread: Field


def dsgd(gradient: Field, setting: Setting) -> SDE:
    """dX = −∇f dt + √(η/N)·(σ/√B) dW (D2.1)."""
    spread = math.sqrt(setting.lr / setting.workers * setting.noise_variance)
    return SDE(lambda x: -gradient(x), lambda x: np.full_like(x, spread))


def dcsgd(gradient: Field, setting: Setting) -> SDE:
    """dX = −∇f dt + √(η/N)·√(ω(∂_jf)² + (1 + ω)σ²/B) dW: random sparsification that keeps each entry with probability
    1/(1 + ω) and multiplies it by 1 + ω (D2.2).
    """
    own, rate, omega = setting.noise_variance, setting.lr / setting.workers, setting.omega
    return SDE(lambda x: -gradient(x), lambda x: np.sqrt(rate * (omega * gradient(x) ** 2 + (1 + omega) * own)))


def dsign(gradient: Field, setting: Setting) -> SDE:
    """dX = −m dt + √(η/N)·√(1 − m²) dW, m = E sign(∂_jf + Z) = 2F(√B ∂_jf/σ) − 1 (D2.3, D2.4): for any symmetric law,
    Gaussian (m an error function) and Student's t from ν = 1 and below included.
    """
    if setting.sigma == 0:
        raise ConfigError("sigma=0: sign SGD has an SDE only where there is noise; a number above 0 is allowed")
    rate, scale, noise = math.sqrt(setting.lr / setting.workers), setting.scale, setting.noise

    def mean(x: np.ndarray) -> np.ndarray:
        return noise.sign_mean(gradient(x) / scale)

    return SDE(lambda x: -mean(x), lambda x: rate * np.sqrt(1 - mean(x) ** 2))


def with_curvature(sde: SDE, curvature_times_gradient: Field, lr: float, sign: int) -> SDE:
    """The SDE with ±(η/2)∇²f∇f added to its drift (D5.1).

    −1 is the classical equation of second weak order, +1 the one that loses stability where the iteration does. Raises
    `ConfigError` for another sign, and for a learning rate that is not above 0.
    """
    check(lr=(lr, ABOVE_0))
    if sign not in (-1, 1):
        raise ConfigError(f"sign={sign}: −1 or 1 is allowed")
    return SDE(lambda x: sde.drift(x) + sign * lr / 2 * curvature_times_gradient(x), sde.spread)


def solve(sde: SDE, start: np.ndarray, times: Sequence[float], step: float, key: Key) -> list[np.ndarray]:
    """The replicas at the rising `times`, by Euler-Maruyama with steps of at most `step` (in units of time).

    `start`: (replicas, d). Raises `ConfigError` for a step that is not above 0, for times that fall, for a start of
    another shape, and for a drift or spread that does not keep it; and `DivergedError` where replicas blow up, which an
    explicit scheme does where step · curvature > 2.
    """
    check(step=(step, Range(open_low=True, what="a time")))
    generator, x, now, found = _generator(key), _replicas(start), 0.0, []
    _check_rising("times", times, FROM_0)
    for name in ("drift", "spread"):
        _check_shape(name, getattr(sde, name)(x), x)
    for time in times:
        count = max(0, math.ceil((time - now) / step - 1e-9))
        dt = (time - now) / count if count else 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(count):
                x = x + sde.drift(x) * dt + sde.spread(x) * (math.sqrt(dt) * generator.standard_normal(x.shape))
        _check(x, f"steps of {step}")
        now = time
        found.append(x)
    return found


def iterate(
    method: str, gradient: Field, setting: Setting, start: np.ndarray, counts: Sequence[int], key: Key
) -> list[np.ndarray]:
    """The replicas after the rising numbers of steps `counts` of the discrete algorithm.

    `method`: "dsgd" x − (η/N)Σg_i; "dcsgd" with each worker's own random sparsification; "dsign" with the mean of signs
    (D1.1). Every worker draws its own noise. Raises `ConfigError` for another method, counts that fall, a start that is
    not (replicas, d), or a gradient of another shape; `DivergedError` where replicas blow up.
    """
    if method not in ("dsgd", "dcsgd", "dsign"):
        raise ConfigError(f"method={method!r}: dsgd, dcsgd or dsign is allowed")
    check(workers=(setting.workers, COUNT))
    generator, x, done, found = _generator(key), _replicas(start), 0, []
    _check_rising("counts", counts, Range(whole=True))
    _check_shape("gradient", gradient(x), x)
    keep = 1 / (1 + setting.omega)
    for count in counts:
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(count - done):
                mean, total = gradient(x), np.zeros_like(x)
                for _ in range(setting.workers):
                    g = mean + setting.scale * setting.noise.sample(x.shape, generator) if setting.sigma else mean
                    if method == "dcsgd":
                        g = np.where(generator.random(x.shape) < keep, g / keep, 0.0)
                    total += np.sign(g) if method == "dsign" else g
                x = x - setting.lr / setting.workers * total
        _check(x, f"a learning rate of {setting.lr}")
        done = count
        found.append(x)
    return found


def _generator(key: Key) -> np.random.Generator:
    if not isinstance(key, Key):
        raise ConfigError(f"key={key!r}: a key is allowed, such as telegrad.Key(0)")
    return key.generator()


def _replicas(start: np.ndarray) -> np.ndarray:
    allowed = "finite numbers of shape (replicas, d) are allowed"
    try:
        x = np.array(start, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"start={start!r}: {allowed}") from None
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ConfigError(f"start of shape {x.shape}: {allowed}")
    return x


def _check_shape(name: str, found: np.ndarray, x: np.ndarray) -> None:
    if np.shape(found) != x.shape:
        raise ConfigError(
            f"{name} of shape {np.shape(found)} at replicas of shape {x.shape}: the same shape is allowed"
        )


def _check_rising(name: str, values: Sequence[float], each: Range) -> None:
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str):
        raise ConfigError(f"{name}={values!r}: a list of numbers is allowed")
    for value in values:
        check(**{name: (value, each)})
    if any(a > b for a, b in pairwise(values)):
        raise ConfigError(f"{name}={list(values)}: numbers from 0 that do not fall are allowed")


def _check(x: np.ndarray, what: str) -> None:
    if not float(np.abs(x).max(initial=0.0)) < _BLOWN_UP:
        raise DivergedError(f"the replicas blow up with {what}: smaller ones are stable")
