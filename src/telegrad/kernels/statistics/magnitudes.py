"""Passes over magnitudes: the largest one, and sums of squares in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.device import with_gpu_form
from telegrad.kernels.threads import in_blocks, in_chunks

__all__ = [
    *("largest_in", "largest_magnitude", "plain", "sum_of_magnitudes"),
    *("sum_of_magnitudes_in", "sums_of_squares", "sums_of_squares_in"),
]

_LANES = 64
_SHORT = (torch.bfloat16, torch.float16)
_ALONE = 1 << 17  # too few to be shared out
_SUMMED = 1 << 16
_PIECE = 1 << 20  # 16-bit floats are widened in pieces, never as a whole


def plain(v: Tensor) -> np.ndarray:
    """v as a numpy array on the CPU, without a copy where it lies there; 16-bit floats become float32."""
    if v.requires_grad:
        v = v.detach()
    if not v.is_cpu:
        v = v.cpu()
    if v.dtype in _SHORT:
        v = v.float()
    return v.contiguous().numpy()


_MASKS: dict[int, Any] = {4: (np.int32, np.int32(2**31 - 1)), 8: (np.int64, np.int64(2**63 - 1))}


def _largest_scalar(bits: Any, mask: Any) -> Any:
    largest = mask & 0
    for i in range(len(bits)):
        largest = max(largest, bits[i] & mask)
    return largest


def _largest_reference(bits: np.ndarray, mask: Any) -> Any:
    return (bits & mask).max(initial=0)


def largest_in(x: np.ndarray) -> float:
    """max |x_i| of float32 or float64 numbers by the calling thread; NaN where there is one: its bits are largest."""
    integer, mask = _MASKS[x.itemsize]
    return float(integer(_largest(x.view(integer), mask)).view(x.dtype))


def largest_magnitude(v: Tensor) -> float:
    """max |v_j|, 0 where there are none, NaN where there is one."""
    if v.is_cuda:
        low, high = v.aminmax()
        return max(-float(low), float(high))

    if v.numel() < _ALONE:
        return largest_in(plain(v))

    def work(_: int, start: int, stop: int) -> float:
        pieces = (v[low : min(stop, low + _PIECE)] for low in range(start, stop, _PIECE))
        return _worst(largest_in(plain(piece)) for piece in pieces)

    return _worst(in_chunks(work, len(v)))


def _worst(found: Iterable[float]) -> float:
    return max(found, key=lambda one: (math.isnan(one), one), default=0.0)


def _square_scalar(v: Any, block: int, out: Any) -> None:
    sums = np.zeros(_LANES)
    for b in range(len(out)):
        sums[:] = 0.0
        part = v[b * block : (b + 1) * block]
        whole = len(part) // _LANES * _LANES
        for i in range(0, whole, _LANES):
            for lane in range(_LANES):
                x = np.float64(part[i + lane])
                sums[lane] += x * x
        for i in range(whole, len(part)):
            x = np.float64(part[i])
            sums[i - whole] += x * x
        total = 0.0
        for lane in range(_LANES):
            total += sums[lane]
        out[b] = total


def _square_reference(v: np.ndarray, block: int, out: np.ndarray) -> None:
    for b in range(len(out)):
        part = v[b * block : (b + 1) * block].astype(np.float64)
        lanes = np.zeros(-(-len(part) // _LANES) * _LANES)
        lanes[: len(part)] = part * part
        # Cumulated, because that has one order.
        out[b] = np.cumsum(np.cumsum(lanes.reshape(-1, _LANES), axis=0)[-1])[-1]


@with_gpu_form("magnitudes")
def sums_of_squares(v: Tensor, block: int) -> Tensor:
    """Σ v_j² over every `block` of neighbours (the last may be shorter), float64: 64 interleaved sums, then their
    sum.
    """
    x = plain(v)
    # Chunks count entries; each has whole blocks.
    parts = in_chunks(lambda _, low, high: sums_of_squares_in(x[low:high], block), len(x), block)
    return torch.from_numpy(np.concatenate([np.zeros(0), *parts]))


def sums_of_squares_in(x: np.ndarray, block: int) -> np.ndarray:
    """The same for float32 or float64 numbers, by the calling thread."""
    out = np.empty(-(-len(x) // block))
    _square(x, block, out)
    return out


def sum_of_magnitudes(v: Tensor) -> float:
    """Σ |v_j| in float64: the sums over every 65536 neighbours, rounded once more when they are added."""
    x = plain(v)
    return math.fsum(in_blocks(lambda start, stop: sum_of_magnitudes_in(x[start:stop]), len(x), _SUMMED))


def _sum_scalar(x: Any) -> float:
    lanes = np.zeros(_LANES)
    whole = len(x) // _LANES * _LANES
    for i in range(0, whole, _LANES):
        for lane in range(_LANES):
            lanes[lane] += abs(np.float64(x[i + lane]))
    for i in range(whole, len(x)):
        lanes[i - whole] += abs(np.float64(x[i]))
    total = 0.0
    for lane in range(_LANES):
        total += lanes[lane]
    return total


def _sum_reference(x: np.ndarray) -> float:
    lanes = np.zeros(-(-len(x) // _LANES) * _LANES)
    lanes[: len(x)] = np.abs(x)
    return float(np.cumsum(np.cumsum(lanes.reshape(-1, _LANES), axis=0)[-1])[-1])


def sum_of_magnitudes_in(x: np.ndarray) -> float:
    """Σ |x_i| in float64, 64 interleaved sums and then their sum, by the calling thread."""
    return float(_sum(x)) if len(x) else 0.0


_largest = Loop(_largest_scalar, _largest_reference)
_square = Loop(_square_scalar, _square_reference)
_sum = Loop(_sum_scalar, _sum_reference)
