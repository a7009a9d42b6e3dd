"""How fast compressors are, beside what else could be done with the tensor, in one process.

Every contender runs in turn, repetition by repetition, and a copy of the tensor is timed just before each: what else
the machine does then strikes all alike. Figures are medians; `ratio` is the median of a contender's time over that of
the copy before it. The first call, which loads or compiles the loops, is shown apart.
"""

from __future__ import annotations

import contextlib
import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError
from telegrad.kernels.threads import each
from telegrad.lab.peers import decoding_peers, encoding_peers
from telegrad.lab.provenance import provenance
from telegrad.random import Key
from telegrad.runtime.simulate import simulate
from telegrad.spec import build, registered
from telegrad.wire.code import add_codes
from telegrad.wire.message import pack, unpack

__all__ = [
    "DEFAULT_SPECS",
    "STEP_SPECS",
    "VECTORS",
    "Share",
    "Timing",
    "as_json",
    "bench_codec",
    "bench_step",
    "peak_bytes",
    "whole_catalogue",
]

STEP_SPECS = (
    "mlmc(stopk(s=0.01, values=sign))",
    "mlmc(stopk(s=0.01))",
    "importance(k=0.01)",
    "topk(k=0.01)",
    "randk(k=0.01)",
)
"""What is timed in a simulated step where no spec is given."""

DEFAULT_SPECS = (
    *STEP_SPECS,
    "mlmc(fixed_point)",
    "eden(bits=1)",
    "qsgd(levels=20, bucket=512)",
    "ecdq(bits=2)",
)
"""What is encoded and decoded where no spec is given."""


def whole_catalogue() -> list[str]:
    """An example of every registered compressor, and MLMC over one of every ladder."""
    compressors = [one.example for name, one in registered("compressor").items() if name != "mlmc"]
    return [*compressors, *(f"mlmc({one.example})" for one in registered("ladder").values())]


VECTORS: dict[str, Callable[[Tensor], Tensor]] = {
    "gauss": lambda z: z,
    "heavy": lambda z: z.pow(5),
}
"""Laws of the entries, made from normal ones; the fifth power of a normal number has a kurtosis of 700."""

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
class Share:
    """What compression takes of a step of the simulator."""

    method: str
    workers: int
    seconds_per_step: float
    encode_seconds_per_step: float

    @property
    def share(self) -> float:
        """The part of a step that is spent in the methods' worker and server steps."""
        return self.encode_seconds_per_step / self.seconds_per_step


@dataclass(frozen=True)
class _Contender:
    name: str
    ours: bool
    call: Callable[[], Any]
    bits: int | None


def bench_codec(
    part: Literal["encode", "decode"],
    specs: Sequence[str],
    sizes: Sequence[int],
    vectors: Sequence[str],
    repeats: int,
    peers: bool = True,
    progress: Callable[[str], None] = lambda text: None,
    device: str = "cpu",
) -> list[Timing]:
    """Time encoding (packed bytes included) or decoding (unpacking and accumulating into a dense float32 tensor),
    beside a copy and, where `peers` are wanted, what torch offers.

    On a GPU, `device="cuda"`, a call ends when the device has done what it started. Raises `SpecError` for a spec that
    does not exist or fit, `ConfigError` for an unknown law of entries or a device that is not there.
    """
    if device != "cpu" and not (device == "cuda" and torch.cuda.is_available()):
        raise ConfigError(f"device={device!r}: cpu is there, and cuda where torch finds a GPU")
    compressors = [build(spec, "compressor") for spec in specs]
    found = []
    for size in sizes:
        for vector in vectors:
            if vector not in VECTORS:
                raise ConfigError(f"vector={vector!r}: {', '.join(VECTORS)} are there")
            x = VECTORS[vector](torch.randn(size, generator=torch.Generator().manual_seed(size))).to(device)
            progress(f"{part}: {size:,} entries, {vector}")
            contenders = _encoders(compressors, x) if part == "encode" else _decoders(compressors, x)
            contenders = [contender for contender in contenders if contender.ours or peers]
            found += _timed(contenders, x, vector, repeats)
    return found


def _encoders(compressors: Sequence[Compressor], x: Tensor) -> list[_Contender]:
    def ours(compressor: Compressor) -> _Contender:
        step = iter(range(1 << 62))

        def call() -> bytes:
            # A key of its own for each step, as in training.
            return pack(compressor.encode(x, Key().fold(step=next(step), rank=0)))

        return _Contender(str(compressor), True, call, None)

    peers = [_Contender(name, False, call, bits) for name, call, bits in encoding_peers(x)]
    return [*map(ours, compressors), *peers]


def _decoders(compressors: Sequence[Compressor], x: Tensor) -> list[_Contender]:
    out = torch.zeros_like(x)

    def ours(compressor: Compressor) -> list[_Contender]:
        # Eight messages, as a server gets them: one a call, and all at once. Some compressors know fewer ranks.
        data = [pack(compressor.encode(x, Key().fold(step=step, rank=0))) for step in range(8)]
        turn = iter(range(1 << 62))
        bits = 8 * round(statistics.fmean(map(len, data)))

        def together() -> None:
            add_codes(each(unpack, data, 8 * len(x)), out, 1 / 8)

        return [
            _Contender(str(compressor), True, lambda: unpack(data[next(turn) % 8]).add_to(out), bits),
            _Contender(f"eight of {compressor}", True, together, 8 * bits),
        ]

    peers = [_Contender(name, False, call, bits) for name, call, bits in decoding_peers(x, out)]
    return [*(contender for compressor in compressors for contender in ours(compressor)), *peers]


def _timed(contenders: Sequence[_Contender], x: Tensor, vector: str, repeats: int) -> list[Timing]:
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


def peak_bytes(call: Callable[[], Any], x: Tensor) -> int | None:
    """By how much a call raises the process's resident memory at its peak, or, for an x on a GPU, what is allocated
    there; None where the system does not tell.
    """
    if x.is_cuda:
        torch.cuda.reset_peak_memory_stats(x.device)
        allocated = torch.cuda.memory_allocated(x.device)
        call()
        return torch.cuda.max_memory_allocated(x.device) - allocated
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    _give_memory_back()
    try:
        clear.write_text("5", encoding="ascii")  # forget the highest resident set so far
        before = _status_kib(status, "VmRSS")
        call()
        return max(0, _status_kib(status, "VmHWM") - before) * 1024
    except (OSError, ValueError):
        call()
        return None


def _give_memory_back() -> None:
    """To the system what earlier calls have left: a call that takes it again would seem to need nothing."""
    with contextlib.suppress(OSError, AttributeError):  # glibc has this function
        ctypes.CDLL(None).malloc_trim(0)


def _status_kib(status: Path, name: str) -> int:
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(name))
    return int(line.split()[1])


def bench_step(methods: Sequence[str], workers: int, steps: int, repeats: int) -> list[Share]:
    """Train the digits CNN in the simulator and tell what compression takes of a step: medians over the runs."""
    found: dict[str, list[tuple[float, float]]] = {}
    for repeat in range(repeats + 1):
        for method in methods:
            run = simulate("digits", method, workers=workers, steps=steps, evaluate_every=steps, lr=0.05, seed=repeat)
            if repeat:  # the first run loads the loops
                found.setdefault(method, []).append((run.seconds_per_step, run.encode_seconds_per_step))
    return [
        Share(method, workers, *(statistics.median(column) for column in zip(*runs, strict=True)))
        for method, runs in found.items()
    ]


def as_json(part: str, rows: Sequence[Timing] | Sequence[Share], device: str = "cpu") -> dict[str, Any]:
    """What `telegrad bench --json` writes; a GPU by its name."""
    where = torch.cuda.get_device_name() if device == "cuda" else device
    results = [asdict(row) | ({"share": row.share} if isinstance(row, Share) else {}) for row in rows]
    return {"bench": part, **provenance(), "device": where, "threads": torch.get_num_threads(), "results": results}
