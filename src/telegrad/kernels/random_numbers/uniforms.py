"""The stream of a key inside compiled loops, so that no array of uniforms is ever made.

`uniform_bits` is one element of `telegrad.random.Key.uniform` before it becomes a float: element i is
`uniform_bits(offset, inner, i) · 2^−53`, with (offset, inner) = `key.stream`. A loop that calls it by
this name lists it in its `Loop(…, uses=[uniform_bits])`. One that goes through neighbours saves a product each:

    state = state_at(offset, first)
    for i in range(n):
        … bits_at(state, inner)
        state += STRIDE
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.device import with_gpu_form
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import in_chunks
from telegrad.random import Key
from telegrad.random.arrays import normal_from

__all__ = [
    *("FEW", "STRIDE", "UNIT", "bits_at", "bits_from", "drawn_in_proportion", "normals", "state_at"),
    *("stream_bits", "uniform_at", "uniform_bits", "uniform_source", "uniforms", "uniforms_from"),
]

_SHORT = 64  # below it, a few numpy operations are as quick as a compiled loop
_WIDE = (torch.float32, torch.float64)
_PIECE = 1 << 18
_BLOCK = 256
_CPU = torch.device("cpu")

_NONE, _ZERO = np.empty(0), np.uint64(0)

FEW = 1024
"""For `uniform_source` in front of dense passes: beside so few entries an array of uniforms costs nothing."""

UNIT = 2.0**-53
"""What the integers of `uniform_bits` are multiplied by to lie in [0, 1); the product is exact."""

# Compiled code mixes signed and unsigned integers into floats: everything here is unsigned.
_ONE = np.uint64(1)
STRIDE = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11, _40 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11), np.uint64(40)


def stream_bits(offset, inner, i):  # type: ignore[no-untyped-def]
    """Element i of the stream, 64 bits; `offset` and `inner` uint64, i any integer >= 0."""
    return _mixed(state_at(offset, i), inner)


def uniform_bits(offset, inner, i):  # type: ignore[no-untyped-def]
    """Element i of the stream as an integer below 2^53, uint64: what is a float in `Key.uniform`."""
    return bits_at(state_at(offset, i), inner)


def state_at(offset, i):  # type: ignore[no-untyped-def]
    """What element i is mixed from; that of the next one is STRIDE more: a loop over neighbours saves a product."""
    return (np.uint64(i) + _ONE) * STRIDE + offset


def bits_at(state, inner):  # type: ignore[no-untyped-def]
    """`uniform_bits` of the element with that state."""
    return _mixed(state, inner) >> _11


def _mixed(z, inner):  # type: ignore[no-untyped-def]
    z = _nearly_mixed(z, inner)
    return z ^ (z >> _31)


def _nearly_mixed(z, inner):  # type: ignore[no-untyped-def]
    """All but the last step, which leaves the 31 leading bits as they are."""
    z = ((z ^ (z >> _30)) * _MIX_1) ^ inner
    return (z ^ (z >> _27)) * _MIX_2


def uniform_source(key: Key, n: int, few: int = _SHORT) -> tuple[np.ndarray, np.uint64, np.uint64]:
    """What `uniform_at` takes for n numbers of `key.uniform`: the numbers themselves where they are `few`, else the
    key's words.
    """
    return (key.uniform(n).numpy(), _ZERO, _ZERO) if n < few else (_NONE, *key.stream)


def uniform_at(given, offset, inner, i):  # type: ignore[no-untyped-def]
    """Element i of `Key.uniform`, from what `uniform_source` gave."""
    return given[i] if len(given) else np.float64(1.0) * uniform_bits(offset, inner, i) * UNIT


def uniforms_from(given: np.ndarray, offset: np.uint64, inner: np.uint64, first: int, n: int) -> np.ndarray:
    """`uniform_at` of n neighbours: for the forms in numpy."""
    with np.errstate(over="ignore"):
        return uniform_at(given, offset, inner, np.arange(first, first + n))


def bits_from(offset: np.uint64, inner: np.uint64, first: int, n: int) -> np.ndarray:
    """`uniform_bits` of n neighbours: for the forms in numpy."""
    with np.errstate(over="ignore"):
        return uniform_bits(offset, inner, np.arange(first, first + n, dtype=np.uint64))


def uniforms(key: Key, n: int, start: int = 0, device: torch.device = _CPU) -> Tensor:
    """`key.uniform(n, start=start)`, float64, made on the device; on the CPU by all threads."""
    return uniforms_on(device, key, n, start)


def normals(key: Key, n: int) -> Tensor:
    """`key.normal(n)` from uniform numbers of a compiled loop."""
    return normal_from(uniforms(key, n))


@with_gpu_form("uniforms")
def uniforms_on(device: torch.device, key: Key, n: int, start: int) -> Tensor:
    """`uniforms` in another order."""
    if n < _SHORT:
        return key.uniform(n, start=start, device=device)
    out = torch.empty(n, dtype=torch.float64)
    array, (offset, inner) = out.numpy(), key.stream
    in_chunks(lambda _, low, high: _fill(array[low:high], offset, inner, start + low), n)
    return out.to(device)


@with_gpu_form("uniforms")
def drawn_in_proportion(v: Tensor, threshold: float, key: Key) -> Tensor:
    """The indices j with u_j · threshold < |v_j|, u = `key.uniform(d)`: each with probability |v_j| / threshold, at
    most 1; increasing, int64, shape (n,), on the CPU. `v`: flat and contiguous, any float dtype. No array of size d is
    made.
    """
    v = v.cpu()
    n = v.numel()
    if n < _SHORT:
        return (key.uniform(n) * threshold < v.double().abs()).nonzero().squeeze(1)
    offset, inner = key.stream
    values = plain(v) if v.dtype in _WIDE else v  # the others are widened in pieces

    def work(_: int, start: int, stop: int) -> list[np.ndarray]:
        buffer, found = np.empty(min(_PIECE, stop - start) + 1, dtype=np.int64), []
        for low in range(start, stop, _PIECE):
            piece = values[low : min(stop, low + _PIECE)]
            piece = piece if isinstance(piece, np.ndarray) else plain(piece)
            found.append(buffer[: _draw(piece, threshold, offset, inner, low, buffer)].copy())
        return found

    parts = [found for part in in_chunks(work, n) for found in part]
    return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))


def _draw_scalar(values, threshold, offset, inner, start, where):  # type: ignore[no-untyped-def]
    """Mark a block without a branch, then look at its marks eight at a time: most entries are not drawn.

    Marked are those that the 24 leading bits of u, in float32, cannot rule out.
    """
    marks = np.zeros(_BLOCK, dtype=np.uint8)
    eights, at = marks.view(np.uint64), np.uint64(0)
    # A scale that is too large rules out less, one that vanishes would rule out all.
    scale = np.float32(max(2.0**24 * (1 + 2.0**-20) / threshold, 2.0**-126) if threshold > 0 else np.inf)
    for begin in range(0, len(values), _BLOCK):
        block = values[begin : begin + _BLOCK]
        state = state_at(offset, start + begin)
        for j in range(len(block)):
            marks[j] = np.float32(np.int32(_nearly_mixed(state, inner) >> _40)) <= abs(block[j]) * scale
            state += STRIDE
        for eight in range((len(block) + 7) // 8):
            if eights[eight]:
                for j in range(8 * eight, min(8 * eight + 8, len(block))):
                    if marks[j]:
                        u = np.float64(uniform_bits(offset, inner, start + begin + j)) * UNIT
                        where[at] = start + begin + j
                        at += np.uint64(u * threshold < abs(np.float64(block[j])))
    return at


def _draw_reference(
    values: np.ndarray, threshold: float, offset: np.uint64, inner: np.uint64, start: int, where: np.ndarray
) -> int:
    u = np.empty(len(values))
    _fill_reference(u, offset, inner, start)
    chosen = np.flatnonzero(u * threshold < np.abs(values.astype(np.float64)))
    where[: len(chosen)] = chosen + start
    return len(chosen)


def _fill_scalar(out, offset, inner, start):  # type: ignore[no-untyped-def]
    state = state_at(offset, start)
    for i in range(len(out)):
        out[i] = np.float64(bits_at(state, inner)) * UNIT
        state += STRIDE


def _fill_reference(out: np.ndarray, offset: np.uint64, inner: np.uint64, start: int) -> None:
    out[:] = bits_from(offset, inner, start, len(out)) * UNIT


_fill = Loop(_fill_scalar, _fill_reference, uses=[state_at, bits_at])
_draw = Loop(_draw_scalar, _draw_reference, uses=[state_at, _nearly_mixed, uniform_bits])
