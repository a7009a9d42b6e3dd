"""Contenders timed in turn, in one process.

Every contender runs in turn, repetition by repetition, and a copy of the tensor is timed just before each: what else
the machine does then strikes all alike. Figures are medians; `ratio` is the median of a contender's time over that of
the copy before it. The first call, which loads or compiles the loops, is shown apart.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from telegrad.lab.peak_memory import peak_bytes

__all__ = ["Contender", "Timing", "timed"]

_LEAST_SECONDS = 5e-3  # of one timing: short calls are repeated within it
_SLOW = 2.0  # seconds: calls that take longer are timed twice only


@dataclass(frozen=True)
class Timing:
    """One contender on one tensor of `size` float32 entries, `vector` their law.

    `seconds`: median time of a call; `ratio`: to a copy; `first_seconds`: the first call; `extra_bytes`: peak memory of
    a call beyond what was there, as a share of the tensor's bytes (None where the system does not tell); `bits`: the
    message, None where there is none.
    """

    name: str
    ours: bool
    vector: str
    size: int
    seconds: float
    ratio: float
    first_seconds: float
    extra_bytes: float | None
    bits: int | None


@dataclass(frozen=True)
class Contender:
    """What is timed: `ours` or a peer; `bits` of the message where `call` does not return it as bytes."""

    name: str
    ours: bool
    call: Callable[[], Any]
    bits: int | None


def timed(contenders: Sequence[Contender], x: Tensor, vector: str, repeats: int) -> list[Timing]:
    """Time the contenders on x in turn; the copy's row comes first."""
    contenders = [replace(contender, call=_finished(contender.call, x)) for contender in contenders]
    target = torch.empty_like(x)
    target.copy_(x)
    first: list[float] = []
    shares: list[float | None] = []
    bits: list[int | None] = []
    for contender in contenders:
        began = time.perf_counter()
        made = contender.call()
        first.append(time.perf_counter() - began)
        bits.append(8 * len(made) if isinstance(made, bytes) else contender.bits)
        del made
        peak = peak_bytes(contender.call, x)
        shares.append(None if peak is None else peak / (4 * len(x)))
    times: list[list[float]] = [[] for _ in contenders]
    ratios: list[list[float]] = [[] for _ in contenders]
    copies: list[float] = []
    for repeat in range(repeats):
        for number, contender in enumerate(contenders):
            if repeat >= 2 and times[number][0] > _SLOW:
                continue
            copies.append(_seconds(_finished(lambda: target.copy_(x), x)))
            times[number].append(_seconds(contender.call))
            ratios[number].append(times[number][-1] / copies[-1])
    copy = Timing("copy", False, vector, len(x), statistics.median(copies), 1.0, 0.0, 0.0, 32 * len(x))
    found = [
        Timing(
            contender.name,
            contender.ours,
            vector,
            len(x),
            statistics.median(times[number]),
            statistics.median(ratios[number]),
            first[number],
            shares[number],
            bits[number],
        )
        for number, contender in enumerate(contenders)
    ]
    return [copy, *found]


def _finished(call: Callable[[], Any], x: Tensor) -> Callable[[], Any]:
    """The call and, for an x on a GPU, the wait for what it started there."""
    if not x.is_cuda:
        return call

    def whole() -> Any:
        made = call()
        torch.cuda.synchronize(x.device)
        return made

    return whole


def _seconds(call: Callable[[], Any]) -> float:
    """The time of one call; the mean of several where one is too short to be timed."""
    count, spent = 0, 0.0
    while spent < _LEAST_SECONDS:
        began = time.perf_counter()
        call()
        spent += time.perf_counter() - began
        count += 1
    return spent / count
