"""Short streams of integers: the shorter of a Rice code and a fixed width, found and written in one call."""

from __future__ import annotations

import numpy as np

from telegrad.kernels.coding.bit_streams import best_rice, best_scalar, pack_rice_scalar, packed_rice
from telegrad.kernels.coding.symbols import fix_scalar, fixed_width
from telegrad.kernels.compilation import Loop

__all__ = ["packed_shortest"]


def packed_shortest(values: np.ndarray) -> tuple[int, int, bytes, int]:
    """(b, the length in bits, the packed integers, the largest of them) of integers below 2^62, shape (n,): as a Rice
    code with parameter b or, where that is not longer and b is then −1, in the bits that the largest has, each.
    """
    b, nbits, largest, packed = _pack(values.astype(np.int64, copy=False))
    return b, nbits, packed.tobytes(), largest


def _pack_scalar(values):  # type: ignore[no-untyped-def]
    b, length, largest = best_scalar(values)
    width = 0
    while largest >> width:
        width += 1
    if length < width * len(values):
        return b, length, largest, pack_rice_scalar(values, b)
    out = np.zeros((width * len(values) + 7) // 8, dtype=np.uint8)
    if width > 0:
        fix_scalar(values, width, out)
    return -1, width * len(values), largest, out


def _pack_reference(values: np.ndarray) -> tuple[int, int, int, np.ndarray]:
    b, length, largest = best_rice(values)
    width = int(largest).bit_length()
    if length < width * len(values):
        return b, length, largest, packed_rice(values, b)
    return -1, width * len(values), largest, fixed_width(values, width)


_pack = Loop(_pack_scalar, _pack_reference, uses=[best_scalar, pack_rice_scalar, fix_scalar])
