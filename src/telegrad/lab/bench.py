"""How fast compressors are, beside what else could be done with the tensor, in one process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError
from telegrad.kernels.threads import each
from telegrad.lab.peers import decoding_peers, encoding_peers
from telegrad.lab.provenance import provenance
from telegrad.lab.timing import Contender, Timing, timed
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
    "as_json",
    "bench_codec",
    "bench_step",
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
            found += timed(contenders, x, vector, repeats)
    return found


def _encoders(compressors: Sequence[Compressor], x: Tensor) -> list[Contender]:
    def ours(compressor: Compressor) -> Contender:
        step = iter(range(1 << 62))

        def call() -> bytes:
            # A key of its own for each step, as in training.
            return pack(compressor.encode(x, Key().fold(step=next(step), rank=0)))

        return Contender(str(compressor), True, call, None)

    peers = [Contender(name, False, call, bits) for name, call, bits in encoding_peers(x)]
    return [*map(ours, compressors), *peers]


def _decoders(compressors: Sequence[Compressor], x: Tensor) -> list[Contender]:
    out = torch.zeros_like(x)

    def ours(compressor: Compressor) -> list[Contender]:
        # Eight messages, as a server gets them: one a call, and all at once. Some compressors know fewer ranks.
        data = [pack(compressor.encode(x, Key().fold(step=step, rank=0))) for step in range(8)]
        turn = iter(range(1 << 62))
        bits = 8 * round(statistics.fmean(map(len, data)))

        def together() -> None:
            add_codes(each(unpack, data, 8 * len(x)), out, 1 / 8)

        return [
            Contender(str(compressor), True, lambda: unpack(data[next(turn) % 8]).add_to(out), bits),
            Contender(f"eight of {compressor}", True, together, 8 * bits),
        ]

    peers = [Contender(name, False, call, bits) for name, call, bits in decoding_peers(x, out)]
    return [*(contender for compressor in compressors for contender in ours(compressor)), *peers]


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
