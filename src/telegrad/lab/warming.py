"""Every loop that the catalogue uses, compiled ahead of a job's first step."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch

from telegrad.errors import ConfigError, TelegradError, TelegradWarning
from telegrad.kernels.caching import compiled_here
from telegrad.lab.bench import whole_catalogue
from telegrad.random import Key
from telegrad.runtime.simulate import simulate
from telegrad.spec import build, registered
from telegrad.wire.message import pack, unpack

__all__ = ["Warmed", "warm_up"]

_SIZES = (7, 1000, 150_000)  # few entries, one thread's, several threads'
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Warmed:
    """What `warm_up` did: the names of the loops compiled, and the seconds it took in all."""

    compiled: tuple[str, ...]
    seconds: float


def warm_up(progress: Callable[[str], None] = lambda text: None) -> Warmed:
    """Send and receive a message of every compressor and ladder in the catalogue, and take two steps of every method.

    Args:
        progress: is told each spec whose turn it is.

    Returns:
        The loops that were compiled: none where their code was on the disk already.
    """
    begun, before = time.perf_counter(), len(compiled_here)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TelegradWarning)
        for spec in whole_catalogue():
            progress(spec)
            for size in _SIZES:
                for dtype in _DTYPES:
                    _send(spec, size, dtype)
        for one in registered("method").values():
            progress(one.example)
            with suppress(ConfigError):  # asynchronous ones want a clock, and send messages like the others
                simulate("quadratic(d=64)", one.example, steps=2, workers=4, lr=1e-3)
    return Warmed(tuple(compiled_here[before:]), time.perf_counter() - begun)


def _send(spec: str, size: int, dtype: torch.dtype) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)
    compressor = build(spec, "compressor")
    try:
        code = compressor.encode(x, Key().fold(step=0, rank=0))
        compressor.variance(x)
    except TelegradError:  # some ask for more entries, or for another dtype
        return
    unpack(pack(code)).decode()
