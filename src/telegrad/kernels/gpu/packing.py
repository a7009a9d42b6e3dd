"""Integers of a fixed width into bytes on a GPU."""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from telegrad.kernels.gpu.launching import BLOCK, launch

__all__ = ["fixed_width"]


@triton.jit
def _pack(values, n, out, size, WIDTH: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Byte j from the values that have bits in it, PARTS at most: no two programs write to one byte."""
    j = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    first, byte = 8 * j // WIDTH, tl.zeros((BLOCK,), dtype=tl.int64)
    for part in tl.static_range(PARTS):
        i = first + part
        value = tl.load(values + i, mask=i < n, other=0).to(tl.int64)
        left = 8 * (j + 1) - (i + 1) * WIDTH  # bits of the byte behind the value's last; below 0 where it goes on
        here = (value << tl.maximum(left, 0)) >> tl.maximum(-left, 0)
        byte |= tl.where(left < 8, here, 0)
    tl.store(out + j, (byte & 255).to(tl.uint8), mask=j < size)


def fixed_width(values: Tensor, width: int) -> np.ndarray:
    """The form of `telegrad.kernels.symbols.fixed_width` for a tensor; the bytes come to the CPU."""
    out = torch.empty((len(values) * width + 7) // 8, dtype=torch.uint8, device=values.device)
    # A byte that starts with a value's last bit sees 7 bits of those behind it.
    parts = 1 + -(-7 // width) if width else 0
    launch(_pack, -(-len(out) // BLOCK), values, len(values), out, len(out), WIDTH=width, PARTS=parts, BLOCK=BLOCK)
    packed: np.ndarray = out.cpu().numpy()
    return packed
