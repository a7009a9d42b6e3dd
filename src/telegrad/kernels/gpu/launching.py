"""What every form for a GPU shares: starting a kernel, and writing chosen entries in the order of their indices.

Offsets into tensors are 64 bits wide. Atomic additions are only ever of integers, so that their order cannot be seen.
"""

import struct
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["BLOCK", "bits_of", "chosen_in_two_passes", "launch", "write_chosen"]

BLOCK = 2048
"""Entries that one program looks at."""


def launch(kernel: Any, programs: int, *arguments: Any, **constants: Any) -> None:
    """Run `programs` programs of the kernel on the device of the first argument, a tensor.

    A product and a sum are never contracted to one operation that rounds once: the CPU's loops round twice.
    """
    if programs:
        with torch.cuda.device_of(arguments[0]):
            kernel[(programs,)](*arguments, **constants, enable_fp_fusion=False)


def bits_of(x: float) -> int:
    """A float64 as an integer: Triton passes Python's floats as float32."""
    return int.from_bytes(struct.pack("<d", x), "little", signed=True)


def chosen_in_two_passes(start: Callable[[Tensor, Tensor, bool], None], n: int, device: torch.device) -> Tensor:
    """The indices that programs over n entries choose, increasing, int64, on the device.

    `start(starts, out, write)` launches a kernel of ⌈n / BLOCK⌉ programs: first each stores to `starts` how many it
    chooses, then writes them to `out` from the place that `starts` tells. The only synchronisation is for the total.
    """
    counts = torch.empty(-(-n // BLOCK), dtype=torch.int64, device=device)
    start(counts, counts, False)
    ends = counts.cumsum(0)
    out = torch.empty(int(ends[-1]) if n else 0, dtype=torch.int64, device=device)
    if len(out):
        start(ends - counts, out, True)
    return out


@triton.jit
def write_chosen(chosen, i, start, out, room):  # type: ignore[no-untyped-def]
    """Write the chosen of the indices i to out[start], out[start + 1], …, and never beyond its `room`."""
    place = start + tl.cumsum(chosen.to(tl.int32), 0) - 1
    tl.store(out + place, i, mask=chosen & (place < room))
