"""Stochastic rounding to multiples of a step on a GPU: an entry's symbol, a byte or two, is all that leaves it."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from telegrad.kernels.gpu.launching import BLOCK, launch
from telegrad.kernels.gpu.uniforms import uniform
from telegrad.kernels.quantising.rounding import symbol_dtype
from telegrad.random import Key

__all__ = ["rounded_to_steps"]


@triton.jit(do_not_specialize=["bucket", "offset", "inner"])
def _round(x, n, steps, bucket: tl.int64, offset: tl.uint64, inner: tl.uint64, out, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    number = tl.load(x + i, mask=i < n, other=0.0).to(tl.float64)
    y = tl.abs(number) / tl.load(steps + i // bucket, mask=i < n, other=1.0)
    below = tl.floor(y)
    magnitude = below.to(tl.int64) + (uniform(offset, inner, i) < y - below).to(tl.int64)
    tl.store(out + i, tl.where(number < 0, -magnitude, magnitude).to(out.dtype.element_ty), mask=i < n)


def rounded_to_steps(v: Tensor, steps: Tensor, bucket: int, key: Key, most: int) -> Tensor:
    """The form of `telegrad.kernels.quantising.rounding.rounded_to_steps`; the symbols come to the CPU."""
    n, out = len(v), torch.empty(len(v), dtype=symbol_dtype(most), device=v.device)
    bucket = n if len(steps) == 1 else bucket
    launch(_round, -(-n // BLOCK), v, n, steps.to(v.device), bucket, *key.words, out, BLOCK=BLOCK)
    return out.cpu()
