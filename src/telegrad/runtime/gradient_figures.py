"""What a look at the gradients of a step finds out: what compressors, bfloat16 and the memory do with them, and how the
gradients of the ranks differ; the same on all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from telegrad.errors import SpecError
from telegrad.random import Key
from telegrad.runtime.bfloat16_average import in_bfloat16
from telegrad.runtime.comm_hook import Load
from telegrad.runtime.group_transport import GroupTransport
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.link import gathered_numbers
from telegrad.runtime.step_times import now
from telegrad.theory.cost_model import Cluster, Profile
from telegrad.theory.profiles import copy_bandwidth, profile

__all__ = ["Figures", "Sample", "figures_of", "noise_of", "sampled"]

_SAMPLE, _SHARE, _LARGEST = 1 << 16, 1 / 16, 1 << 20  # entries of the gradient that compressors are tried on,
_STRETCHES = 16  # so many pieces of each bucket
_COMPARED = 2048  # entries of it that all ranks tell each other
_COPIED = 1 << 22  # entries whose copy is timed
_FIGURES = 8  # of a candidate


@dataclass(frozen=True)
class Figures:
    """What a look found; see `decide`."""

    cluster: Cluster
    profiles: list[Profile]
    halving: float
    noise: float


@dataclass(frozen=True)
class Sample:
    """Some entries of each bucket, on the CPU. `copying`: seconds to copy all of the buckets to where they are encoded;
    `device`: where the buckets lie; `full`: whether all of them are float32.
    """

    entries: Tensor
    copying: float
    device: torch.device
    full: bool

    @property
    def poor(self) -> bool:
        """Whether nothing can be measured on it."""
        return not bool(self.entries.isfinite().all()) or not bool(self.entries.any())


def sampled(loads: Sequence[Load]) -> Sample:
    """A sample of the buckets of a step."""
    buffers = [load.buffer.detach() for load in loads]
    total, device = sum(map(Tensor.numel, buffers)), buffers[0].device
    size = min(max(_SAMPLE, _SHARE * total), _LARGEST)  # on few entries, what a call costs hides the rest
    share, began = min(1.0, size / total), now(device)
    pieces = [piece for buffer in buffers for piece in buffer.chunk(_STRETCHES)]
    entries = torch.cat([piece[: math.ceil(share * len(piece))] for piece in pieces]).cpu()
    copying = (now(device) - began) / share if device.type == "cuda" else 0.0
    return Sample(entries, copying, device, all(buffer.dtype == torch.float32 for buffer in buffers))


def figures_of(
    sample: Sample,
    cluster: Cluster,
    specs: Sequence[str],
    entries: int,
    pieces: int,
    transport: GroupTransport,
    ledger: Ledger,
) -> Figures:
    """How compressors, the all-reduce in bfloat16 and the memory do on gradients of so many `entries`, sent in so many
    `pieces`; the worst of all ranks.
    """
    mine = [figure for spec in specs for figure in _tried(spec, sample.entries, entries)]
    memory, halving = 1 / copy_bandwidth(min(entries, _COPIED), repeats=1), _halving(sample, entries, transport.workers)
    told = gathered_numbers(transport, ledger, [halving, memory, *mine]).amax(0)
    rows = told[2:].view(-1, _FIGURES).tolist()
    profiles = [
        Profile(
            spec, entries, bits, omega, encode + sample.copying, decode, True, call, decode_call, again, frame, pieces
        )
        for spec, (bits, omega, encode, decode, call, decode_call, again, frame) in zip(specs, rows, strict=True)
    ]
    there = replace(cluster, memory_bandwidth=1 / float(told[1]))
    return Figures(there, profiles, float(told[0]), noise_of(sample.entries, transport, ledger))


def noise_of(sample: Tensor, transport: GroupTransport, ledger: Ledger) -> float:
    """The variance of the mean gradient over the square of its own mean, from how the ranks' gradients differ."""
    workers = transport.workers
    rows = gathered_numbers(transport, ledger, sample[:: -(-len(sample) // _COMPARED)].tolist())
    each, mean = float(rows.square().sum(1).mean()), float(rows.mean(0).square().sum())
    if workers < 2 or not each > 0:
        return 0.0
    signal = workers * mean - each
    return (each - mean) / signal if signal > 0 else math.inf


def _tried(spec: str, sample: Tensor, entries: int) -> list[float]:
    """A candidate's bits, ω, seconds to encode and to decode, and of these a call's own, seconds to encode an estimate,
    and a message's own bits; infinity where it does not fit.
    """
    try:
        found = profile(spec, sample, entries, repeats=2)
    except SpecError:
        return [math.inf] * 4 + [0.0, 0.0, math.inf, 0.0]
    calls = found.encode_call, found.decode_call, found.encode_estimate, found.frame
    return [found.bits, found.omega, found.encode, found.decode, *calls]


def _halving(sample: Sample, entries: int, workers: int) -> float:
    """Seconds to bfloat16 and back: infinite where no bytes are saved."""
    if not sample.full:
        return math.inf
    part, seconds = sample.entries.to(sample.device), math.inf
    for _ in range(3):
        began = now(sample.device)
        in_bfloat16(part, Key()).float()
        seconds = min(seconds, now(sample.device) - began)
    return seconds * (1 + 1 / workers) * entries / len(sample.entries)
