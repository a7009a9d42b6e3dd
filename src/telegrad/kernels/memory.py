"""Memory for whole vectors: fresh, and the adding of numbers that are made a piece at a time, so that none is needed.

Fresh memory comes in pages of 4 KiB, each of which the system fills with zeros when it is first touched: for a vector
of 100 MB that takes longer than most decoders. numpy asks for pages of 2 MiB, torch does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.threads import in_chunks

__all__ = ["add_in_pieces", "add_times", "adds_in_pieces", "room", "zeros"]

_CPU = torch.device("cpu")
_IN_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.float16: np.float16}
_LARGE = 1 << 22  # bytes from which numpy asks for large pages
_LINE = 64
_ALONE = 32704  # entries: a few less than torch shares out over threads of its own


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device = _CPU) -> Tensor:
    """A tensor of zeros; on the CPU as fresh memory from the system: what is never touched costs nothing.

    Raises `ValueError`, `MemoryError` or `RuntimeError` where there is no room for such a tensor.
    """
    if dtype in _IN_NUMPY and device.type == "cpu":
        return torch.from_numpy(np.zeros(shape, dtype=_IN_NUMPY[dtype]))
    return torch.zeros(shape, dtype=dtype, device=device)


def room(n: int, dtype: torch.dtype) -> Tensor:
    """n entries on the CPU that hold anything; long ones in large pages.

    Raises `ValueError`, `MemoryError` or `RuntimeError` where there is no room for them.
    """
    nbytes = n * dtype.itemsize
    if nbytes < _LARGE:
        return torch.empty(n, dtype=dtype)
    raw = np.empty(nbytes + _LINE, dtype=np.uint8)
    start = -raw.ctypes.data % _LINE
    return torch.from_numpy(raw[start : start + nbytes]).view(dtype)


def adds_in_pieces(out: Tensor) -> bool:
    """Whether `add_in_pieces` may add to `out`: sums of 16 bits are rounded otherwise by torch at the ends of what it
    is given.
    """
    return out.is_cpu and out.dtype in (torch.float32, torch.float64)


def add_in_pieces(out: Tensor, weight: float, n: int, size: int, make: Callable[[int, int, np.ndarray], None]) -> None:
    """out[:n] += weight · numbers, by all threads; make(start, stop, room) writes the numbers start … stop − 1, up to
    `size` neighbours at a time, which the cache is to hold.
    """
    target = out.detach().numpy()

    def work(_: int, start: int, stop: int) -> None:
        held = room(min(size, stop - start), out.dtype).numpy()
        for low in range(start, stop, size):
            high = min(stop, low + size)
            make(low, high, held[: high - low])
            add_times(target[low:high], held[: high - low], weight)

    in_chunks(work, n, size)


def add_times(target: np.ndarray, numbers: np.ndarray, weight: float) -> None:
    """target += weight · numbers as `Tensor.add_` rounds it, by this thread alone."""
    for start in range(0, len(target), _ALONE):
        part: Any = torch.from_numpy(target[start : start + _ALONE])
        part.add_(torch.from_numpy(numbers[start : start + _ALONE]), alpha=weight)
