"""Shadowheart's equilibrium time: how long a round lasts where workers compute and send at their own speeds (C17)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from telegrad.errors import ConfigError
from telegrad.methods.shadowheart import equilibrium_seconds
from telegrad.theory.ranges import COUNT, FROM_0, check

__all__ = ["Equilibrium", "equilibrium"]


@dataclass(frozen=True)
class Equilibrium:
    """`seconds`: t*; `gradients` and `messages`: how many each worker makes in a round (b_i, m_i), in the order given;
    `weight`: S, at least 1, which the guarantee E‖g − ∇f‖² ≤ (‖∇f‖² + ε)/S divides by.
    """

    seconds: float
    gradients: tuple[int, ...]
    messages: tuple[int, ...]
    weight: float


def equilibrium(
    compute: Sequence[float], send: Sequence[float], omega: float, noise: float, most: int = 1_000_000
) -> Equilibrium:
    """t* = min_j max{max{h_j, τ_j}, s*(j)}, workers sorted by max{h_i, τ_i} (C17.1).

    `compute`: h_i, seconds a stochastic gradient; `send`: τ_i, seconds a compressed message; `omega` of the compressor;
    `noise`: σ²/ε. `most`: the budget of a worker that needs no time. Raises `ConfigError` for values out of range.
    Source: C17; Tyurin, Pozzi, Ilin, Richtárik, "Shadowheart SGD", 2024.
    """
    if not compute or len(compute) != len(send):
        raise ConfigError(f"{len(compute)} compute times and {len(send)} send times: as many of both are needed")
    for values, name in ((compute, "compute"), (send, "send"), ((omega,), "omega"), ((noise,), "noise")):
        for value in values:
            check(**{name: (value, FROM_0)})
    check(most=(most, COUNT))
    if not any(max(pair) for pair in zip(compute, send, strict=True)):
        raise ConfigError(
            f"compute={list(compute)}, send={list(send)}: nobody needs any time; a time above 0 is allowed"
        )
    best = equilibrium_seconds(list(compute), list(send), omega, noise)
    gradients = tuple(_budget(best, h, most) for h in compute)
    messages = tuple(_budget(best, tau, most) for tau in send)
    active = [(b, m) for b, m in zip(gradients, messages, strict=True) if b and m]
    parts = [b * omega + omega * noise + m * noise for b, m in active]
    weight = sum(m * b / w if w else math.inf for (b, m), w in zip(active, parts, strict=True))
    return Equilibrium(best, gradients, messages, weight)


def _budget(seconds: float, each: float, most: int) -> int:
    return most if each == 0 else min(most, math.floor(seconds / each * (1 + 1e-12)))
