"""Every loop that the catalogue uses, compiled ahead of a job's first step."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args, get_origin, get_type_hints

import torch

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, SpecError, TelegradError, TelegradWarning
from telegrad.kernels.caching import compiled_here
from telegrad.lab.bench import whole_catalogue
from telegrad.methods import AsynchronousMethod, Clock
from telegrad.random import Key
from telegrad.runtime.simulate import simulate
from telegrad.spec import build, registered
from telegrad.wire.code import add_codes
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
    """Send and receive a message of every compressor and ladder in the catalogue, and take two steps of every method
    and one over every topology.

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
            for compressor in _variants(spec):
                for size in _SIZES:
                    for dtype in _DTYPES:
                        _send(compressor, size, dtype)
        for one in registered("method").values():
            progress(one.example)
            with suppress(ConfigError):  # an example may not fit a model of one tensor
                simulate("quadratic(d=64)", one.example, steps=2, workers=4, lr=1e-3, clock=_clock(one))
        for topology in registered("topology").values():
            progress(topology.example)
            simulate("quadratic(d=64)", "sgd(qsgd)", topology=topology.example, steps=1, workers=4, lr=1e-3)
    return Warmed(tuple(compiled_here[before:]), time.perf_counter() - begun)


def _clock(method: type) -> Clock | None:
    """For a method that runs by a simulated clock only."""
    wanted = issubclass(method, AsynchronousMethod) or getattr(method, "needs_clock", False)
    return Clock(gradient=1.0, message=1.0) if wanted else None


def _variants(spec: str) -> Iterator[Compressor]:
    """The compressor, and what each choice among words (`coder=trellis`, `values=sign`) makes of it."""
    example: Compressor = build(spec, "compressor")
    yield example
    hints = get_type_hints(type(example))
    for field in fields(example):  # type: ignore[arg-type]
        if get_origin(hints[field.name]) is Literal:
            for word in get_args(hints[field.name]):
                with suppress(SpecError):  # words that do not go together
                    yield replace(example, **{field.name: word})  # type: ignore[type-var]


def _send(compressor: Compressor, size: int, dtype: torch.dtype) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)
    try:
        code = compressor.encode(x, Key().fold(step=0, rank=0))
        compressor.variance(x)
    except TelegradError:  # some ask for more entries, or for another dtype
        return
    read = unpack(pack(code))
    read.decode()
    out = torch.zeros(size, dtype=dtype)
    read.add_to(out)
    add_codes([read, read], out, 0.5)  # as a server does with the messages of two workers
