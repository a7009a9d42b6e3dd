"""Where noise keeps the loss: stationary losses of the SDEs and of the algorithms, and bounds on the way there (D3).

On f = ½λ‖x‖² in d dimensions with noise of scale σ/√B a coordinate; "floor" is the stationary E f − f*. All functions
raise `ConfigError` where there is no stationary law, and for values out of range.
"""

from __future__ import annotations

import math

from telegrad.errors import ConfigError
from telegrad.theory.constants import check_constants
from telegrad.theory.ranges import ABOVE_0, COUNT, FROM_0, check
from telegrad.theory.sde import Setting

__all__ = [
    *("dcsgd_bound", "dcsgd_floor", "dcsgd_floor_discrete", "dcsgd_gradient_bound", "dsgd_bound", "dsgd_floor"),
    *("dsgd_floor_discrete", "majority_floor", "sign_bound", "sign_floor", "sign_floor_refined", "sign_gradient_bound"),
    "sign_phase_one",
]


def dsgd_floor(setting: Setting, d: int) -> float:
    """ηdσ²/(4NB): the SDE's, whatever λ (D3.6)."""
    check(d=(d, COUNT))
    return setting.lr * d * setting.noise_variance / (4 * setting.workers)


def dsgd_floor_discrete(setting: Setting, d: int, curvature: float) -> float:
    """½λd·ησ²/(NB(2λ − ηλ²)): the iterates' (D3.6)."""
    return dcsgd_floor_discrete(Setting(**{**vars(setting), "omega": 0.0}), d, curvature)


def dcsgd_floor(setting: Setting, d: int, curvature: float) -> float:
    """½λd(η/N)(1 + ω)(σ²/B)/(2λ − ηωλ²/N): the SDE's (D3.6)."""
    check(d=(d, COUNT), curvature=(curvature, ABOVE_0))
    n, eta, lam = setting.workers, setting.lr, curvature
    rate = _rate(2 * lam - eta * setting.omega * lam**2 / n, setting)
    return lam * d * eta / n * (1 + setting.omega) * setting.noise_variance / rate / 2


def dcsgd_floor_discrete(setting: Setting, d: int, curvature: float) -> float:
    """½λd(η/N)(1 + ω)(σ²/B)/(2λ − ηλ²(1 + ω/N)): the iterates' (D3.6)."""
    check(d=(d, COUNT), curvature=(curvature, ABOVE_0))
    n, eta, lam = setting.workers, setting.lr, curvature
    rate = _rate(2 * lam - eta * lam**2 * (1 + setting.omega / n), setting)
    return lam * d * eta / n * (1 + setting.omega) * setting.noise_variance / rate / 2


def sign_floor(setting: Setting, d: int) -> float:
    """ηdσ/(4Nℓ√B), ℓ = 2·density at 0: the SDE's in phase 3, whatever λ; linear in σ, finite for every law (D3.6)."""
    check(d=(d, COUNT))
    return setting.lr * d * setting.scale / (4 * setting.workers * setting.noise.slope)


def sign_floor_refined(setting: Setting, d: int, curvature: float) -> float:
    """½λd·E x² with E x² = (η/2N)/(ℓλ√B/σ + (η/2N)ℓ²λ²B/σ²): with the noise's loss 1 − m² where the gradient is not 0.

    For Gaussian noise ℓ = √(2/π), and the second term is (η/πN)λ²B/σ².
    """
    check(d=(d, COUNT), curvature=(curvature, ABOVE_0), sigma=(setting.sigma, ABOVE_0))
    slope = setting.noise.slope * curvature / setting.scale
    rate = setting.lr / (2 * setting.workers)
    return curvature * d * rate / (slope + rate * slope**2) / 2


def majority_floor(setting: Setting, d: int) -> float:
    """ηd/(4·s), s the slope of E maj at 0 over σ/√B: the floor of a majority vote, 1/√N and not 1/N (D3.7).

    s = ℓ·N·C(N−1, (N−1)/2)·2^(1−N) for odd N, about ℓ√(2N/π). Raises `ConfigError` for even N.
    """
    check(d=(d, COUNT))
    n = setting.workers
    if n % 2 != 1:
        raise ConfigError(f"workers={n}: an odd number is allowed, so that no vote is tied")
    half = (n - 1) // 2
    log_chance = math.lgamma(n) - 2 * math.lgamma(half + 1) - (n - 1) * math.log(2)  # C(N − 1, (N − 1)/2)·2^(1 − N)
    gain = n * math.exp(log_chance)
    return setting.lr * d * setting.scale / (4 * gain * setting.noise.slope)


def dsgd_bound(setting: Setting, start: float, time: float, L: float, mu: float, d: int) -> float:
    """S_0 e^(−2μt) + (1 − e^(−2μt))·ηLσ²/(4μNB), σ² summed over coordinates (D3.1)."""
    return dcsgd_bound(Setting(**{**vars(setting), "omega": 0.0}), start, time, L, mu, d)


def dcsgd_bound(setting: Setting, start: float, time: float, L: float, mu: float, d: int) -> float:
    """S_0 e^(−ρt) + (1 − e^(−ρt))·ηL(1 + ω)σ²/(2NBρ), ρ = 2μ − ηLμω/N (D3.2)."""
    _check_bound(start, time, L, mu, d)
    _check_stable(setting, L)
    n = setting.workers
    rate = _rate(2 * mu - setting.lr * L * mu * setting.omega / n, setting)
    total = d * setting.noise_variance
    stays = setting.lr * L * (1 + setting.omega) * total / (2 * n * rate)
    return start * math.exp(-rate * time) + (1 - math.exp(-rate * time)) * stays


def sign_bound(setting: Setting, start: float, time: float, L: float, mu: float, d: int) -> float:
    """S_0 e^(−2μℓt√B/σ) + (1 − e^(…))·ηLdσ/(4μℓN√B): phase 3 (D3.3)."""
    _check_bound(start, time, L, mu, d)
    check(sigma=(setting.sigma, ABOVE_0))
    slope = setting.noise.slope / setting.scale
    decay = math.exp(-2 * mu * slope * time)
    return start * decay + (1 - decay) * setting.lr * L * d / (4 * mu * slope * setting.workers)


def sign_phase_one(start: float, time: float, mu: float) -> float:
    """(√S_0 − t√(μ/2))²: phase 1, without noise; it ends in finite time (D3.4)."""
    check(start=(start, FROM_0), time=(time, FROM_0), mu=(mu, ABOVE_0))
    return max(0.0, math.sqrt(start) - time * math.sqrt(mu / 2)) ** 2


def dcsgd_gradient_bound(setting: Setting, start: float, time: float, L: float, d: int) -> float:
    """(S_0/t + ηL(1 + ω)σ²/(2NB))/(1 − ηLω/(2N)): the mean of E‖∇f‖² up to t, for any L-smooth f (D3.5); of DSGD where
    ω = 0.
    """
    _check_nonconvex(start, time, L, d)
    _check_stable(setting, L)
    share = setting.lr * L / (2 * setting.workers)
    noisy = share * (1 + setting.omega) * d * setting.noise_variance
    return (start / time + noisy) / _rate(1 - share * setting.omega, setting)


def sign_gradient_bound(setting: Setting, start: float, time: float, L: float, d: int) -> float:
    """(S_0/t + ηLd/(2N))·σ/(ℓ√B): the mean of E‖∇f‖² up to t of sign SGD in phase 3, for any L-smooth f (D3.5)."""
    _check_nonconvex(start, time, L, d)
    check(sigma=(setting.sigma, ABOVE_0))
    return (start / time + setting.lr * L * d / (2 * setting.workers)) * setting.scale / setting.noise.slope


def _check_nonconvex(start: float, time: float, L: float, d: int) -> None:
    check(start=(start, FROM_0), time=(time, ABOVE_0), L=(L, ABOVE_0), d=(d, COUNT))


def _check_stable(setting: Setting, L: float) -> None:
    """The SDE knows no limit of η in its drift, but the iteration that it stands for has one."""
    share = L * (1 + setting.omega / setting.workers)
    if setting.lr * share >= 2:
        raise ConfigError(f"lr={setting.lr}: the iteration is unstable; lower lr: below {2 / share:.6g} is allowed")


def _check_bound(start: float, time: float, L: float, mu: float, d: int) -> None:
    check(start=(start, FROM_0), time=(time, FROM_0), L=(L, ABOVE_0), mu=(mu, ABOVE_0), d=(d, COUNT))
    check_constants(L=L, mu=mu)


def _rate(rate: float, setting: Setting) -> float:
    if rate <= 0:
        raise ConfigError(
            f"lr={setting.lr} with omega={setting.omega} and {setting.workers} workers has no stationary law: it is "
            "unstable; lower lr"
        )
    return rate
