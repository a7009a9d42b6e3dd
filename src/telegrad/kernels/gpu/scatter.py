"""Adding a message's numbers at their places on a GPU."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from telegrad.kernels.gpu.launching import bits_of, launch

__all__ = ["add_at"]

_BLOCK = 1024


@triton.jit
def _nearest_bfloat16(x):  # type: ignore[no-untyped-def]
    """float32 x rounded to a bfloat16, ties to even, still as a float32."""
    bits = x.to(tl.int32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _from_bfloat16(bits):  # type: ignore[no-untyped-def]
    return (bits.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["weight"])
def _add(out, index, numbers, n, weight: tl.int64, BFLOAT16: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    place = tl.load(index + i, mask=i < n, other=0)
    number, before = tl.load(numbers + i, mask=i < n, other=0), tl.load(out + place, mask=i < n, other=0)
    factor = weight.to(tl.int64).to(tl.float64, bitcast=True)
    # Rounded after the product and after the sum, as by the CPU.
    if BFLOAT16:
        product = _nearest_bfloat16(_from_bfloat16(number) * factor.to(tl.float32))
        after = _nearest_bfloat16(_from_bfloat16(before) + product)
        tl.store(out + place, (after.to(tl.int32, bitcast=True) >> 16).to(tl.int16), mask=i < n)
    else:
        tl.store(out + place, before + number * factor.to(number.dtype), mask=i < n)


def add_at(out: Tensor, parts: Sequence[tuple[Tensor, Tensor]], weight: float) -> None:
    """The form of `telegrad.kernels.coding.scatter.add_at`.

    The indices of one message differ, so no two entries meet; messages follow each other on the device's stream, so
    that each place gets its terms in the order in which they were asked for, without an atomic addition of floats.
    """
    factor, of_16_bits = bits_of(float(torch.tensor(weight, dtype=out.dtype))), out.dtype == torch.bfloat16
    total = out.detach().view(torch.int16) if of_16_bits else out
    for where, what in parts:
        index, numbers = where.to(out.device).contiguous(), what.to(device=out.device, dtype=out.dtype).contiguous()
        if of_16_bits:
            numbers = numbers.view(torch.int16)
        programs = -(-len(index) // _BLOCK)
        launch(_add, programs, total, index, numbers, len(index), factor, BFLOAT16=of_16_bits, BLOCK=_BLOCK)
