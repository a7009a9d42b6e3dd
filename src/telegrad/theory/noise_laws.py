"""Symmetric laws of gradient noise, infinite variance included, as the SDE of sign compression needs them (D2.3, D2.4).

Noise of a coordinate is Z = (σ/√B) · T, T of one of these laws; σ is a scale, and a standard deviation only where T has
variance 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from telegrad.errors import ConfigError
from telegrad.theory.ranges import ABOVE_0, Range, check

__all__ = ["Gaussian", "NoiseLaw", "StudentT", "Symmetric"]


class NoiseLaw(ABC):
    """A symmetric law of noise on the line."""

    @abstractmethod
    def cdf(self, y: np.ndarray) -> np.ndarray:
        """P(T <= y)."""

    @property
    @abstractmethod
    def density_at_zero(self) -> float:
        """The density of T at 0."""

    @property
    @abstractmethod
    def variance(self) -> float:
        """E T²; infinity where there is none."""

    @abstractmethod
    def sample(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        """Independent draws of T."""

    def sign_mean(self, y: np.ndarray) -> np.ndarray:
        """E sign(y + T) = 2F(y) − 1: erf(y/√2) for Gaussian noise, 2Ξ_ν(y) for Student's t (D2.3, D2.4)."""
        return 2 * self.cdf(y) - 1

    @property
    def slope(self) -> float:
        """ℓ = 2 · density at 0: the slope of `sign_mean` at 0 (D2.5)."""
        return 2 * self.density_at_zero


@dataclass(frozen=True)
class Gaussian(NoiseLaw):
    """The standard normal law; ℓ = √(2/π)."""

    def cdf(self, y: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        return np.asarray(ndtr(y))

    @property
    def density_at_zero(self) -> float:
        return 1 / math.sqrt(2 * math.pi)

    @property
    def variance(self) -> float:
        return 1.0

    def sample(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        return generator.standard_normal(shape)


@dataclass(frozen=True)
class StudentT(NoiseLaw):
    """Student's t with `nu` degrees of freedom: no variance for nu <= 2, no mean for nu <= 1.

    ℓ_ν = 2Γ((ν+1)/2)/(√(νπ)Γ(ν/2)) (D2.5). Raises `ConfigError` for nu <= 0.
    """

    nu: float

    def __post_init__(self) -> None:
        if not ABOVE_0.fits(self.nu):
            raise ConfigError(
                f"nu={self.nu}: degrees of freedom above 0 are allowed; for Gaussian noise take Gaussian()"
            )

    def cdf(self, y: np.ndarray) -> np.ndarray:
        from scipy.special import stdtr

        return np.asarray(stdtr(self.nu, y))

    @property
    def density_at_zero(self) -> float:
        log = math.lgamma((self.nu + 1) / 2) - math.lgamma(self.nu / 2)
        return math.exp(log) / math.sqrt(self.nu * math.pi)

    @property
    def variance(self) -> float:
        return self.nu / (self.nu - 2) if self.nu > 2 else math.inf

    def sample(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        return generator.standard_cauchy(shape) if self.nu == 1 else generator.standard_t(self.nu, shape)


@dataclass(frozen=True)
class Symmetric(NoiseLaw):
    """Any symmetric law, by its distribution function and quantile function (both of arrays), its density at 0 and its
    variance. Raises `ConfigError` where these do not belong together: a distribution function that is not that of a
    symmetric law, a quantile function that is not its inverse, a density that is not its slope at 0, a variance that is
    not above 0.
    """

    distribution: Callable[[np.ndarray], np.ndarray]
    quantile: Callable[[np.ndarray], np.ndarray]
    density: float
    second_moment: float = math.inf

    def __post_init__(self) -> None:
        check(density=(self.density, ABOVE_0), second_moment=(self.second_moment, Range(open_low=True, infinite=True)))
        for name in ("distribution", "quantile"):
            if not callable(getattr(self, name)):
                raise ConfigError(f"{name}={getattr(self, name)!r}: a function of an array is allowed")
        y = np.linspace(-3.0, 3.0, 13)
        chance = np.asarray(self.distribution(y), dtype=np.float64)
        if chance.shape != y.shape or not np.allclose(chance + chance[::-1], 1.0, atol=1e-6):
            raise ConfigError("the distribution function is not symmetric: F(y) + F(−y) = 1 is wanted")
        if chance.min() < 0 or (np.diff(chance) < 0).any() or chance[0] == chance[-1]:
            raise ConfigError("the distribution function does not rise from 0 to 1, as one must")
        inner = y[(chance > 1e-9) & (chance < 1 - 1e-9)]  # where it has an inverse that float64 can tell
        if not np.allclose(
            self.distribution(np.asarray(self.quantile(self.distribution(inner)))), self.distribution(inner), atol=1e-6
        ):
            raise ConfigError("quantile is not the inverse of distribution: F(Q(p)) = p is wanted")
        step = 1e-4 / self.density
        slope = float(np.diff(self.distribution(np.array([-step, step])))[0]) / (2 * step)
        if not math.isclose(slope, self.density, rel_tol=0.01):
            raise ConfigError(
                f"density={self.density}: the distribution function has slope {slope:.4g} at 0, that is allowed"
            )

    def cdf(self, y: np.ndarray) -> np.ndarray:
        return self.distribution(y)

    @property
    def density_at_zero(self) -> float:
        return self.density

    @property
    def variance(self) -> float:
        return self.second_moment

    def sample(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        return self.quantile(generator.random(shape))
