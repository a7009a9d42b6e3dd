"""Sums of squares on a GPU, in the order in which the CPU forms them."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from telegrad.kernels.gpu.launching import launch

__all__ = ["sums_of_squares", "total_of_lanes"]

_LANES = 64  # as on the CPU
_SHORT = 4096  # blocks up to this length are summed several at a time by one program
_BLOCK = 128


@triton.jit(do_not_specialize=["block", "blocks", "rows"])
def _squares(x, n, block: tl.int64, blocks: tl.int64, rows, out, GROUP: tl.constexpr, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    """Entry number j of a block goes to the sum j mod LANES, row by row; out[lane, block]."""
    number = tl.program_id(0).to(tl.int64) * GROUP + tl.arange(0, GROUP)[:, None]
    lane = tl.arange(0, LANES)[None, :]
    total = tl.zeros((GROUP, LANES), dtype=tl.float64)
    for row in range(rows):
        place = row * LANES + lane
        i = number * block + place
        entry = tl.load(x + i, mask=(place < block) & (i < n), other=0.0).to(tl.float64)
        total += entry * entry
    tl.store(out + lane * blocks + number, total, mask=number < blocks)


@triton.jit(do_not_specialize=["blocks"])
def _total(lanes, blocks: tl.int64, out, LANES: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), dtype=tl.float64)
    for lane in range(LANES):
        total += tl.load(lanes + lane * blocks + i, mask=i < blocks, other=0.0)
    tl.store(out + i, total, mask=i < blocks)


def total_of_lanes(lanes: Tensor) -> Tensor:
    """The sums over the first axis in its order, on the CPU."""
    count, blocks = lanes.shape
    out = torch.empty(blocks, dtype=torch.float64, device=lanes.device)
    launch(_total, -(-blocks // _BLOCK), lanes, blocks, out, LANES=count, BLOCK=_BLOCK)
    return out.cpu()


def sums_of_squares(v: Tensor, block: int) -> Tensor:
    """The form of `telegrad.kernels.statistics.magnitudes.sums_of_squares`; the sums come to the CPU."""
    blocks = -(-len(v) // block)
    lanes = torch.empty((_LANES, blocks), dtype=torch.float64, device=v.device)
    group, rows = 16 if block <= _SHORT else 1, -(-block // _LANES)
    launch(_squares, -(-blocks // group), v, len(v), block, blocks, rows, lanes, GROUP=group, LANES=_LANES)
    return total_of_lanes(lanes)
