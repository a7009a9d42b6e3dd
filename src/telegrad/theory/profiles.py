"""A compressor's cost on a gradient: bits, ω, and this machine's encoding and decoding speed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import DataError, InputError, SpecError
from telegrad.random import Key
from telegrad.spec import build
from telegrad.theory.cost_model import Profile
from telegrad.theory.measuring import expected_bits
from telegrad.theory.ranges import COUNT, check
from telegrad.theory.vectors import flat_vector
from telegrad.wire.message import pack, unpack

__all__ = ["CANDIDATES", "Speeds", "conversion_seconds", "copy_bandwidth", "profile", "read_speeds"]

_PART = 16  # of the entries, what is timed to tell a call's own seconds from those of its entries
_STRETCHES = 16  # of which that part is made, as a shard is made of a stretch of every parameter
_BUCKET_NBYTES = 25 * 2**20
"""DDP's own `bucket_cap_mb`: a gradient is coded in pieces of so many bytes."""

CANDIDATES = (
    "mlmc(stopk(s=0.01, values=sign))",
    "mlmc(stopk(s=0.1, values=sign))",
    "mlmc(fixed_point, probabilities=cost)",
    "importance(k=0.01)",
    "importance(k=0.1)",
    "eden(bits=1)",
    "eden(bits=4)",
    "auto(bits=0.1)",
    "auto(bits=1.0)",
)
"""What is considered where no spec is given: unbiased compressors from .02 to 4 bits a coordinate."""

Speeds = Mapping[str, tuple[float, float]]
"""Seconds an entry for encoding and for decoding, by spec."""


def profile(
    spec: str | Compressor,
    x: Tensor,
    d: int | None = None,
    repeats: int = 3,
    speeds: Speeds | None = None,
    pieces: int | None = None,
) -> Profile:
    """The profile of a compressor on the gradient `x` (any shape, not zero), for `d` entries like these (default: as
    many as x has): bits, seconds and ω of x, bits and seconds in proportion to d. `pieces`: in how many a gradient is
    coded (default: as DDP's buckets, of 25 MiB).

    Bits are the mean length of `repeats` packed messages (see `expected_bits`), those of a frame the length of a single
    entry's message; ω is `variance(x)`/‖x‖². Speeds are the least of `repeats` timings after one that loads the loops
    (a busy machine makes them only longer), unless `speeds` holds them. A sixteenth of a flat x, from all over it, is
    timed, too: what that takes beyond a sixteenth of the time is a call's own. And the sum of the messages is encoded
    as an estimate is in a second phase, which often takes longer. Raises `InputError` for an x that is zero or not
    finite, `ConfigError` for d, repeats or pieces below 1, `SpecError` for a spec that does not fit.
    """
    compressor: Compressor = build(spec, "compressor")
    energy = _energy(x)
    scale = _scale(x, d, repeats)
    entries = round(scale * x.numel())
    pieces = math.ceil(4 * entries / _BUCKET_NBYTES) if pieces is None else pieces
    check(pieces=(pieces, COUNT))
    name = str(compressor)
    bits, encode, decode, again = _coded(compressor, x, repeats)
    encode_call = decode_call = 0.0
    if name in (speeds or {}):
        encode, decode = (seconds * x.numel() for seconds in (speeds or {})[name])
        again = encode
    elif x.dim() == 1:
        part = _spread_part(x)
        _, *short = _coded(compressor, part, repeats)
        share = len(part) / len(x)
        encode_call, decode_call = _of_a_call(encode, short[0], share), _of_a_call(decode, short[1], share)
    return Profile(
        name,
        entries,
        scale * expected_bits(compressor, x.reshape(-1), bits),
        compressor.variance(x) / energy,
        encode_call + scale * (encode - encode_call),
        decode_call + scale * (decode - decode_call),
        compressor.unbiased,
        encode_call,
        decode_call,
        encode_call + scale * (max(again, encode_call) - encode_call),
        _frame(compressor, x),
        pieces,
    )


def _frame(compressor: Compressor, x: Tensor) -> float:
    """The bits of a message of one entry; 0 where the compressor takes no vector as short."""
    try:
        return 8.0 * len(pack(compressor.encode(x.reshape(-1)[x.abs().argmax()].reshape(1), Key(0))))
    except SpecError:
        return 0.0


def _spread_part(x: Tensor) -> Tensor:
    """A sixteenth of the entries: the first ones of each of sixteen stretches."""
    stretches = x.chunk(_STRETCHES)
    return torch.cat([stretch[: -(-len(stretch) // _PART)] for stretch in stretches])


def _coded(compressor: Compressor, x: Tensor, repeats: int) -> tuple[float, float, float, float]:
    """The mean bits of `repeats` messages, and the least seconds to encode and to decode one, after one that loads the
    loops; and to encode the sum of the last two. A message is added to a vector that was just set to zero, so that
    caches hold what they hold in a step.
    """
    out, key = torch.zeros(x.numel(), dtype=torch.float32, device=x.device), Key(0)
    lengths, encoding, decoding = [], [], []
    before, message = b"", b""

    def encode(vector: Tensor, repeat: int) -> tuple[float, bytes]:
        now = key.fold(step=repeat, rank=0)
        return _timed(lambda v: pack(compressor.encode(v, now)), vector, x)

    for repeat in range(repeats + 1):
        before = message
        seconds, message = encode(x, repeat)
        out.zero_()
        spent, _ = _timed(lambda data: unpack(data).add_to(out), message, x)
        lengths.append(8.0 * len(message))
        if repeat:
            encoding.append(seconds)
            decoding.append(spent)
    again = min(encoding)
    if compressor.unbiased:  # else estimates come back uncompressed
        unpack(before).add_to(out)
        again = min([encode(out.view(x.shape), repeat)[0] for repeat in range(max(2, repeats))][1:])
    return math.fsum(lengths) / len(lengths), min(encoding), min(decoding), again


def _of_a_call(whole: float, part: float, share: float) -> float:
    """Seconds that a call takes whatever the length, where `part` is the time of a `share` of the entries."""
    return min(max(0.0, (part - share * whole) / (1 - share)), whole) if share < 1 else 0.0


def conversion_seconds(x: Tensor, d: int | None = None, repeats: int = 3) -> float:
    """Seconds to convert a gradient like `x`, of `d` entries, to float16 and back: the least of `repeats`. Raises
    what `profile` raises.
    """
    _energy(x)
    return _scale(x, d, repeats) * min(_timed(lambda v: v.half().float(), x, x)[0] for _ in range(repeats + 1))


def copy_bandwidth(d: int, repeats: int = 5, fresh: bool = False) -> float:
    """Bits per second at which this machine copies `d` float32 entries (at most 25 million): the fastest of `repeats`.

    `fresh`: into new memory. The system hands out that of a large vector page by page, which takes several times as
    long as the copy. Raises `ConfigError` for d or repeats below 1.
    """
    check(d=(d, COUNT), repeats=(repeats, COUNT))
    x = torch.ones(min(d, 25_000_000))
    room = torch.empty_like(x)
    copy: Callable[[Tensor], Tensor] = (lambda v: v.clone()) if fresh else room.copy_
    return 32.0 * x.numel() / min(_timed(copy, x, x)[0] for _ in range(repeats + 1))


def _energy(x: Tensor) -> float:
    energy = float(flat_vector(x, "the gradient").double().square().sum())
    if energy == 0:
        raise InputError("the gradient is zero or empty: there is nothing to profile")
    return energy


def _scale(x: Tensor, d: int | None, repeats: int) -> float:
    check(d=(x.numel() if d is None else d, COUNT), repeats=(repeats, COUNT))
    return (d or x.numel()) / x.numel()


def _timed(call: Callable[[Any], Any], what: Any, x: Tensor) -> tuple[float, Any]:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    began = time.perf_counter()
    made = call(what)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - began, made


def read_speeds(files: list[Path], vector: str | None = None) -> dict[str, tuple[float, float]]:
    """Speeds from what `telegrad bench encode --json` and `telegrad bench decode --json` wrote: seconds an entry at the
    largest size timed. Specs that are in one kind of file only are left out. Raises `DataError`.
    """
    found: dict[str, dict[str, tuple[int, float]]] = {"encode": {}, "decode": {}}
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            kind, rows = content["bench"], content["results"]
            for row in rows if kind in found else []:
                if row["ours"] and row["vector"] in (vector, row["vector"] if vector is None else vector):
                    size, seconds = int(row["size"]), float(row["seconds"])
                    if size >= found[kind].get(row["name"], (0, 0.0))[0]:
                        found[kind][row["name"]] = (size, seconds / size)
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{file}: a file that `telegrad bench encode|decode --json` wrote is wanted") from None
        if kind not in found:
            raise DataError(f"{file}: of `telegrad bench {kind}`; encode and decode are wanted")
    both = found["encode"].keys() & found["decode"].keys()
    if not both:
        raise DataError("the files hold no compressor with both an encoding and a decoding speed")
    return {name: (found["encode"][name][1], found["decode"][name][1]) for name in sorted(both)}
