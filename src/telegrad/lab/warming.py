"""Every loop that the catalogue uses, compiled ahead of a job's first step."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import product
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, SpecError, TelegradError, TelegradWarning
from telegrad.kernels.caching import compiled_here
from telegrad.lab.bench import whole_catalogue
from telegrad.methods import AsynchronousMethod, Clock
from telegrad.random import Key
from telegrad.runtime.simulate import simulate
from telegrad.spec import Registered, build, registered
from telegrad.wire.bits import Reader
from telegrad.wire.code import add_codes
from telegrad.wire.integers import Integers
from telegrad.wire.message import pack, unpack

__all__ = ["Warmed", "warm_up"]

_SIZES = (7, 300, 5000)  # few entries, a short vector, a long one
_LARGE = (20_000, 387**2)  # of few laws; the last one for several threads
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_NUMBERS = {"bits": (0.03, 0.3, 1.0, 3.0, 6.0), "levels": (1000,)}  # other values of fields of these names
_LAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda z: z,
    "heavy": lambda z: z**5,
    "equal": torch.ones_like,
    "tied": lambda z: z.sign() * (1 + (z > 1)),
    "sparse": lambda z: z * (z > 1.2),
    "far apart": lambda z: z * (torch.arange(len(z)) % (len(z) - 2) < 2),
    "a long gap": lambda z: z * (torch.arange(len(z)) % (len(z) - 2) < len(z) // 2),
}
"""What the entries of a vector may be like, by normal ones: each has ways of its own through the coders."""


@dataclass(frozen=True)
class Warmed:
    """What `warm_up` did: the names of the loops compiled, and the seconds it took in all."""

    compiled: tuple[str, ...]
    seconds: float


def warm_up(progress: Callable[[str], None] = lambda text: None) -> Warmed:
    """Send and receive messages of every compressor and ladder in the catalogue, in their variants, and take two steps
    of every method and one over every topology.

    Args:
        progress: is told each spec whose turn it is.

    Returns:
        The loops that were compiled: none where their code was on the disk already.
    """
    begun, before = time.perf_counter(), len(compiled_here)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TelegradWarning)
        progress("integers")
        _send_integers()
        for spec in whole_catalogue():
            progress(spec)
            compressors: Iterator[Any] = _variants(build(spec, "compressor"))
            for compressor in compressors:
                for x in _vectors():
                    _send(compressor, x)
        for one in registered("method").values():
            progress(one.example)
            with suppress(ConfigError):  # an example may not fit a model of one tensor
                simulate("quadratic(d=64)", one.example, steps=2, workers=4, lr=1e-3, clock=_clock(one))
        for topology in registered("topology").values():
            progress(topology.example)
            simulate("quadratic(d=64)", "sgd(qsgd)", topology=topology.example, steps=1, workers=4, lr=1e-3)
    return Warmed(tuple(compiled_here[before:]), time.perf_counter() - begun)


@cache
def _vectors() -> list[Tensor]:
    def normal(size: int) -> Tensor:
        return torch.randn(size, generator=torch.Generator().manual_seed(size))

    short = [law(normal(size)) for size, law in product(_SIZES, _LAWS.values())]
    large = [*map(normal, _LARGE), *(_LAWS[name](normal(_LARGE[-1])) for name in ("far apart", "a long gap"))]
    return [x.to(dtype) for x in (*short, *large) for dtype in _DTYPES]


def _send_integers() -> None:
    """Streams of integers in every format and dtype: which of them vectors come to depends on their entries."""
    for n, dtype in product((40, 999, 5000), map(np.dtype, ("u1", "i1", "u2", "i2", "i8"))):
        u = np.random.default_rng(n).random(n)
        top = min(2 ** (8 * dtype.itemsize - 1) - 1, 2**60)
        even, few, small = u * top, np.rint(2 * u) * (top // 2), -np.log(u)
        for values in (even, few, small, 1000 * u, 10 * small, np.exp(3 * small)):
            written = Integers(np.minimum(values, top).astype(dtype)).write()
            for buffer in _buffers(written):
                Integers.read(Reader(buffer), n)


def _buffers(message: bytes) -> tuple[bytes, bytearray]:
    """Loops are compiled for memory that is read only, such as `bytes`, and for other, such as an exchange fills."""
    return message, bytearray(message)


def _clock(method: type) -> Clock | None:
    """For a method that runs by a simulated clock only."""
    wanted = issubclass(method, AsynchronousMethod) or getattr(method, "needs_clock", False)
    return Clock(gradient=1.0, message=1.0) if wanted else None


def _variants(part: Registered) -> Iterator[Registered]:
    """The compressor or ladder, and what becomes of it by each choice among words (`coder=trellis`, `values=sign`), by
    other numbers of bits and levels, and by the variants of what it is made of."""
    yield part
    hints = get_type_hints(type(part))
    for field in fields(part):  # type: ignore[arg-type]
        value = getattr(part, field.name)
        choices: tuple[Any, ...] = _NUMBERS.get(field.name, ())
        if get_origin(hints[field.name]) is Literal:
            choices = get_args(hints[field.name])
        elif isinstance(value, Registered):
            choices = tuple(_variants(value))
        for choice in choices:
            with suppress(SpecError):  # what does not go together
                yield replace(part, **{field.name: choice})  # type: ignore[type-var]


def _send(compressor: Compressor, x: Tensor) -> None:
    try:
        code = compressor.encode(x, Key().fold(step=0, rank=0))
        compressor.variance(x)
    except TelegradError:  # some ask for more entries, or for another dtype
        return
    for buffer in _buffers(pack(code)):
        read = unpack(buffer)
        read.decode()
    out = torch.zeros(len(x), dtype=x.dtype)
    read.add_to(out)
    add_codes([read, read], out, 0.5)  # as a server does with the messages of two workers
