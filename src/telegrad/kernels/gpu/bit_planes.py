"""Bit planes of magnitudes relative to the largest, counted and cut out on a GPU."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from telegrad.kernels.gpu.launching import BLOCK, bits_of, launch
from telegrad.kernels.gpu.magnitudes import total_of_lanes
from telegrad.kernels.quantising.bit_planes import PLANES, REST_BLOCK, REST_LANES, bits_dtype

__all__ = ["leading_bits", "plane_counts"]

_MOST = tl.constexpr(2**PLANES - 1)
_WHOLE = tl.constexpr(2.0**PLANES)
_EXACT = tl.constexpr(2.0**53)


@triton.jit
def _scaled(x, m):  # type: ignore[no-untyped-def]
    """(|x| / m · 2^62, its integer part below 2^62)."""
    scaled = tl.abs(x.to(tl.float64)) / m.to(tl.int64).to(tl.float64, bitcast=True) * _WHOLE
    return scaled, tl.minimum(scaled.to(tl.int64), _MOST)


@triton.jit(do_not_specialize=["m"])
def _count(x, n, m: tl.int64, counts, PLANES: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    program = tl.program_id(0).to(tl.int64)
    i = program * BLOCK + tl.arange(0, BLOCK)
    q = _scaled(tl.load(x + i, mask=i < n, other=0.0), m)[1]
    for plane in range(PLANES):
        tl.store(counts + program * PLANES + plane, tl.sum(((q >> (PLANES - 1 - plane)) & 1).to(tl.int32)))


@triton.jit(do_not_specialize=["m", "blocks"])
def _rest(x, n, m: tl.int64, blocks: tl.int64, out, SIZE: tl.constexpr, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    """The squares of what is below the planes, entry number j of a block to the sum j mod LANES; out[lane, block]."""
    number, lane = tl.program_id(0).to(tl.int64), tl.arange(0, LANES)
    total = tl.zeros((LANES,), dtype=tl.float64)
    for row in range(SIZE // LANES):
        i = number * SIZE + row * LANES + lane
        scaled, q = _scaled(tl.load(x + i, mask=i < n, other=0.0), m)
        rest = tl.where(scaled < _EXACT, scaled - q.to(tl.float64), (scaled >= _WHOLE).to(tl.float64))
        total += rest * rest
    tl.store(out + lane * blocks + number, total)


@triton.jit(do_not_specialize=["m", "shift", "mask"])
def _lead(x, n, m: tl.int64, shift: tl.int64, mask: tl.int64, out, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    number = tl.load(x + i, mask=i < n, other=0.0)
    bits = (_scaled(number, m)[1] >> shift) & mask
    tl.store(out + i, tl.where(number.to(tl.float64) < 0, -bits, bits).to(out.dtype.element_ty), mask=i < n)


def plane_counts(v: Tensor, m: float) -> tuple[Tensor, Tensor]:
    """The form of `telegrad.kernels.quantising.bit_planes.plane_counts`; the counts and sums come to the CPU."""
    n, programs, blocks = len(v), -(-len(v) // BLOCK), -(-len(v) // REST_BLOCK)
    counts = torch.empty((programs, PLANES), dtype=torch.int32, device=v.device)
    launch(_count, programs, v, n, bits_of(m), counts, PLANES=PLANES, BLOCK=BLOCK)
    lanes = torch.empty((REST_LANES, blocks), dtype=torch.float64, device=v.device)
    launch(_rest, blocks, v, n, bits_of(m), blocks, lanes, SIZE=REST_BLOCK, LANES=REST_LANES)
    return counts.sum(0, dtype=torch.int64).cpu(), total_of_lanes(lanes)


def leading_bits(v: Tensor, m: float, level: int, count: int) -> Tensor:
    """The form of `telegrad.kernels.quantising.bit_planes.leading_bits`; the integers come to the CPU."""
    n, out = len(v), torch.empty(len(v), dtype=bits_dtype(count), device=v.device)
    arguments = bits_of(m), PLANES - level, (1 << count) - 1
    launch(_lead, -(-n // BLOCK), v, n, *arguments, out, BLOCK=BLOCK)
    return out.cpu()
