"""The stream of a key on a GPU, and the draws in proportion to magnitudes that need no array of it."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from telegrad.kernels.gpu.launching import BLOCK, bits_of, chosen_in_two_passes, launch, write_chosen
from telegrad.random import Key

__all__ = ["drawn_in_proportion", "uniform", "uniform_bits", "uniforms_on"]

_GOLDEN = tl.constexpr(0x9E3779B97F4A7C15)
_MIX_1 = tl.constexpr(0xBF58476D1CE4E5B9)
_MIX_2 = tl.constexpr(0x94D049BB133111EB)
_UNIT = tl.constexpr(2.0**-53)


@triton.jit
def uniform_bits(offset, inner, i):  # type: ignore[no-untyped-def]
    """Element i of the stream as an integer below 2^53, uint64, as `uniform_bits` of random_numbers/uniforms.py."""
    z = (i.to(tl.uint64) + 1) * _GOLDEN + offset.to(tl.uint64)
    z = ((z ^ (z >> 30)) * _MIX_1) ^ inner.to(tl.uint64)
    z = (z ^ (z >> 27)) * _MIX_2
    return (z ^ (z >> 31)) >> 11


@triton.jit
def uniform(offset, inner, i):  # type: ignore[no-untyped-def]
    """Element i of the stream, float64 in [0, 1)."""
    return uniform_bits(offset, inner, i).to(tl.float64) * _UNIT


@triton.jit(do_not_specialize=["offset", "inner", "start"])
def _fill(out, n, offset: tl.uint64, inner: tl.uint64, start: tl.int64, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, uniform(offset, inner, i + start), mask=i < n)


def uniforms_on(device: torch.device, key: Key, n: int, start: int) -> Tensor:
    """`key.uniform(n, start=start)`, float64, made where it is wanted."""
    out = torch.empty(n, dtype=torch.float64, device=device)
    launch(_fill, -(-n // BLOCK), out, n, *key.words, start, BLOCK=BLOCK)
    return out


@triton.jit(do_not_specialize=["threshold", "offset", "inner", "room"])
def _draw(  # type: ignore[no-untyped-def]
    v,
    n,
    threshold: tl.int64,
    offset: tl.uint64,
    inner: tl.uint64,
    starts,
    out,
    room,
    WRITE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    i = program * BLOCK + tl.arange(0, BLOCK)
    magnitude = tl.abs(tl.load(v + i, mask=i < n, other=0.0).to(tl.float64))
    # Beyond the end the magnitude is 0, which is never drawn.
    drawn = uniform(offset, inner, i) * threshold.to(tl.int64).to(tl.float64, bitcast=True) < magnitude
    if WRITE:
        write_chosen(drawn, i, tl.load(starts + program), out, room)
    else:
        tl.store(starts + program, tl.sum(drawn.to(tl.int32)))


def drawn_in_proportion(v: Tensor, threshold: float, key: Key) -> Tensor:
    """The form of `telegrad.kernels.random_numbers.uniforms.drawn_in_proportion`; the indices come to the CPU."""
    n, stream = len(v), (bits_of(threshold), *key.words)

    def start(starts: Tensor, out: Tensor, write: bool) -> None:
        launch(_draw, -(-n // BLOCK), v, n, *stream, starts, out, len(out), WRITE=write, BLOCK=BLOCK)

    return chosen_in_two_passes(start, n, v.device).cpu()
