"""How far compressed SGD parallelises: the error at a fixed number of samples against the number of workers.

With N samples in all, M workers make T = N/M steps. Up to a limit the error is that of the noise, whatever M; beyond
it grows with M, because too few steps are left (B7.5). `sgd_error` and `ef21_sgdm_error` are the guarantees; `limit`
finds where a guarantee doubles; `train` measures: many workers and replicas at once, in memory that does not grow with
the number of workers for methods without memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from telegrad.errors import ConfigError
from telegrad.random import Key
from telegrad.theory.bounds.error_feedback import double_momentum_rate, single_momentum_term
from telegrad.theory.ranges import ABOVE_0, COUNT, FROM_0, Range, check

__all__ = ["Draw", "MethodName", "Problem", "ef21_sgd2m_error", "ef21_sgdm_error", "limit", "sgd_error", "train"]

MethodName = Literal["sgd", "randk", "mlmc", "ef21_sgdm"]
Draw = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def sgd_error(samples: float, workers: float, omega: float, L: float, gap: float, sigma2: float) -> float:
    """2(1 + ω/M)LΔM/N + 2√(2LΔ(1 + ω)σ²/N): (B7.4) with T = N/M steps."""
    _check_error(samples, workers, L, gap, sigma2)
    check(omega=(omega, FROM_0))
    noisy = math.sqrt(2 * L * gap * (1 + omega) * sigma2 / samples)
    return 2 * (1 + omega / workers) * L * gap * workers / samples + 2 * noisy


def ef21_sgdm_error(samples: float, workers: float, alpha: float, L: float, gap: float, sigma2: float) -> float:
    """(C6.4), up to its constant, with T = N/M steps: its slow term is (LΔσ/(√α T))^⅔."""
    double = ef21_sgd2m_error(samples, workers, alpha, L, gap, sigma2)
    return double + single_momentum_term(L, alpha, sigma2, gap, samples / workers)


def ef21_sgd2m_error(samples: float, workers: float, alpha: float, L: float, gap: float, sigma2: float) -> float:
    """The same with double momentum, without that term: what the MLMC paper's (101) states of EF21-SGDM (B7.5)."""
    _check_error(samples, workers, L, gap, sigma2)
    check(alpha=(alpha, Range(high=1, open_low=True)))
    return double_momentum_rate(L, L, alpha, workers, sigma2, gap, samples / workers)


def _check_error(samples: float, workers: float, L: float, gap: float, sigma2: float) -> None:
    """The guarantees take any real numbers of samples and workers, so that `limit` can solve them."""
    check(samples=(samples, ABOVE_0), workers=(workers, ABOVE_0))
    check(L=(L, ABOVE_0), gap=(gap, ABOVE_0), sigma2=(sigma2, FROM_0))


def limit(error: Callable[[float], float], floor: float, most: float = 1e18) -> float:
    """The number of workers at which `error(workers)`, which grows, is twice `floor`; `most` where it never is.

    Raises `ConfigError` for a floor or a largest number that is not above 0, and for an error that is more than twice
    the floor at once or no number.
    """
    check(floor=(floor, ABOVE_0), most=(most, ABOVE_0))
    low, high = 1e-6, most
    if not error(low) < 2 * floor:
        raise ConfigError(
            f"floor={floor:g}: with a millionth of a worker the error is {error(low):g}; above half of that is allowed"
        )
    if error(high) < 2 * floor:
        return most
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if error(middle) < 2 * floor else (low, middle)
    return high


@dataclass(frozen=True)
class Problem:
    """`start`: (d,), finite; `draw(x, count, generator)`: for replicas x (R, d) the stochastic gradients of `count`
    workers, (R, count, d); `loss(x)`: f − f* of each replica, (R,).
    """

    start: np.ndarray
    draw: Draw
    loss: Callable[[np.ndarray], np.ndarray]

    def __post_init__(self) -> None:
        if np.ndim(self.start) != 1 or not np.isfinite(self.start).all():
            raise ConfigError(f"start of shape {np.shape(self.start)}: finite numbers of shape (d,) are allowed")


def train(
    problem: Problem,
    method: MethodName,
    workers: int,
    steps: int,
    lrs: np.ndarray,
    key: Key,
    k: int = 1,
    momentum: float = 1.0,
    chunk: int = 64,
) -> np.ndarray:
    """The mean loss over the last tenth of the steps, a replica for each learning rate in `lrs` (R,); infinite where it
    diverged.

    `method`: "sgd"; "randk" k random entries times d/k; "mlmc" one of ⌈d/k⌉ blocks of sorted entries, drawn in
    proportion to its norm; "ef21_sgdm" with Top-k and `momentum`. Methods without memory hold `chunk` workers'
    gradients at a time, whatever the number of workers; EF21-SGDM needs two vectors a worker. Raises `ConfigError`.
    """
    if method not in ("sgd", "randk", "mlmc", "ef21_sgdm"):
        raise ConfigError(f"method={method!r}: sgd, randk, mlmc or ef21_sgdm is allowed")
    check(workers=(workers, COUNT), steps=(steps, COUNT), chunk=(chunk, COUNT))
    check(k=(k, Range(low=1, high=len(problem.start), whole=True)), momentum=(momentum, Range(high=1, open_low=True)))
    rates = _rates(lrs)
    if not isinstance(key, Key):
        raise ConfigError(f"key={key!r}: a key is allowed, such as telegrad.Key(0)")
    generator = key.generator()
    x = np.tile(np.asarray(problem.start, dtype=np.float64), (len(rates), 1))
    memory: list[_Memory] = [_Memory() for _ in range(0, workers, chunk)]
    last, total, counted = max(1, steps // 10), np.zeros(len(rates)), 0
    estimate = np.zeros_like(x)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(steps):
            mean = np.zeros_like(x)
            for number, first in enumerate(range(0, workers, chunk)):
                gradients = _drawn(problem, x, min(chunk, workers - first), generator)
                mean += _sent(method, gradients, k, momentum, memory[number], generator).sum(axis=1) / workers
            estimate = estimate + mean if method == "ef21_sgdm" else mean
            x = x - rates[:, None] * estimate
            x[~np.isfinite(x).all(axis=1) | (np.abs(x).max(axis=1) > 1e12)] = np.inf
            if step >= steps - last:
                total, counted = total + problem.loss(x), counted + 1
    losses = total / counted
    return np.where(np.isfinite(losses), losses, np.inf)


def _rates(lrs: np.ndarray) -> np.ndarray:
    try:
        rates = np.asarray(lrs, dtype=np.float64)
    except (TypeError, ValueError):
        rates = np.empty(())
    if rates.ndim != 1 or not len(rates) or not (np.isfinite(rates) & (rates > 0)).all():
        raise ConfigError(f"lrs={lrs!r}: a list of finite numbers above 0, one a replica, is allowed")
    return rates


def _drawn(problem: Problem, x: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    gradients = problem.draw(x, count, generator)
    wanted = (len(x), count, x.shape[1])
    if np.shape(gradients) != wanted:
        raise ConfigError(f"draw gives gradients of shape {np.shape(gradients)}: {wanted} is allowed here")
    return gradients


class _Memory:
    """What EF21-SGDM keeps of a chunk of workers: g_i and v_i."""

    known: np.ndarray | None = None
    average: np.ndarray


def _sent(
    method: MethodName, g: np.ndarray, k: int, momentum: float, memory: _Memory, generator: np.random.Generator
) -> np.ndarray:
    """The decoded messages of workers' gradients (R, workers, d)."""
    if method == "sgd":
        return g
    if method == "randk":
        d = g.shape[-1]
        chosen = np.argpartition(generator.random(g.shape), k - 1, axis=-1)[..., :k]
        return _kept(g, chosen) * (d / k)
    if method == "mlmc":
        return _mlmc(g, k, generator)
    if memory.known is None:
        memory.known, memory.average = np.zeros_like(g), g
    else:
        memory.average = (1 - momentum) * memory.average + momentum * g
    gap = memory.average - memory.known
    message = _kept(gap, np.argpartition(-np.abs(gap), k - 1, axis=-1)[..., :k])
    memory.known = memory.known + message
    return message


def _kept(g: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    out = np.zeros_like(g)
    np.put_along_axis(out, chosen, np.take_along_axis(g, chosen, axis=-1), axis=-1)
    return out


def _mlmc(g: np.ndarray, k: int, generator: np.random.Generator) -> np.ndarray:
    """s-Top-k MLMC with s = k, adaptive probabilities (B2.1)."""
    d = g.shape[-1]
    order = np.argsort(-np.abs(g), axis=-1)
    blocks = math.ceil(d / k)
    padded = np.zeros((*g.shape[:-1], blocks * k))
    padded[..., :d] = np.take_along_axis(g, order, axis=-1)
    cut = padded.reshape(*g.shape[:-1], blocks, k)
    norms = np.sqrt((cut**2).sum(axis=-1))
    rising = norms.cumsum(axis=-1)
    drawn = (generator.random(g.shape[:-1])[..., None] * rising[..., -1:] >= rising).sum(axis=-1, keepdims=True)
    drawn = np.minimum(drawn, blocks - 1)
    weight = rising[..., -1:] / np.maximum(np.take_along_axis(norms, drawn, axis=-1), 1e-300)
    mask = (np.arange(blocks)[:, None] == drawn[..., None]) * weight[..., None]
    message = (cut * mask).reshape(padded.shape)[..., :d]
    out = np.empty_like(g)
    np.put_along_axis(out, order, message, axis=-1)
    return out
