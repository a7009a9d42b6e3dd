"""Bit planes of magnitudes relative to the largest (A14): how full each is, and the planes themselves.

|v_j| = m (q_j + rest_j) 2^−62 with integers q_j below 2^62, from ⌊2^62 |v_j| / m⌋ in float64: plane l holds bit
62 − l of q_j. An entry of magnitude m has no finite expansion: its bits are all ones and its rest is 1.

The count of a plane takes no look at single bits: eight words are added in parallel, bit by bit, by a tree of full
adders, into counters whose binary digits are words themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.device import with_gpu_form
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import in_chunks

__all__ = ["PLANES", "REST_BLOCK", "REST_LANES", "bits_dtype", "leading_bits", "plane_counts", "quotients"]

PLANES = 62
"""Bit planes of a magnitude relative to the largest; what is below them is the exact remainder."""

REST_BLOCK = 65536
"""Entries whose squared remainders are summed apart."""

REST_LANES = 128
"""Sums of them that are formed beside each other and added in the end."""

_LANES = REST_LANES // 8
_DIGITS = 11


def quotients(v: Tensor, m: float) -> tuple[Tensor, Tensor]:
    """(q, rest) of every entry, int64 and float64."""
    q, rest = _quotients(plain(v), m)
    return torch.from_numpy(q), torch.from_numpy(rest)


def _quotients(x: np.ndarray, m: float) -> tuple[np.ndarray, np.ndarray]:
    scaled = np.abs(x.astype(np.float64)) / m * 2.0**PLANES
    q = np.minimum(scaled.astype(np.int64), 2**PLANES - 1)
    # The conversion of q back would round; below 2^53 it is exact, above it scaled is an integer itself.
    return q, np.where(scaled < 2.0**53, scaled - q, (scaled >= 2.0**PLANES).astype(np.float64))


def _count_scalar(x: Any, m: float, counts: Any, squares: Any) -> None:
    row, most = 8 * _LANES, np.int64(2**PLANES - 1)
    words, lanes = np.zeros(row, dtype=np.int64), np.zeros(row)
    digits = np.zeros((_DIGITS, _LANES), dtype=np.int64)  # digits 0 to 2 between rows, the others as rows come
    since = 0
    for block in range(len(squares)):
        lanes[:] = 0.0
        stop = min(len(x), (block + 1) * REST_BLOCK)
        for low in range(block * REST_BLOCK, stop, row):
            size = min(row, stop - low)
            if size < row:
                words[:] = 0
            part = x[low : low + size]
            for i in range(size):
                scaled = abs(np.float64(part[i])) / m * 4611686018427387904.0
                q = min(np.int64(scaled), most)
                fraction = scaled - np.float64(q)
                ending = 1.0 if scaled >= 4611686018427387904.0 else 0.0
                rest = fraction if scaled < 9007199254740992.0 else ending
                words[i] = q
                lanes[i] += rest * rest
            for j in range(_LANES):
                a, b, c, d = words[j], words[j + _LANES], words[j + 2 * _LANES], words[j + 3 * _LANES]
                e, f = words[j + 4 * _LANES], words[j + 5 * _LANES]
                g, h = words[j + 6 * _LANES], words[j + 7 * _LANES]
                one, two, four = digits[0, j], digits[1, j], digits[2, j]
                # A full adder: t = u ^ v, the sum is t ^ w and the carry u & v | t & w.
                t = one ^ a
                s1, c1 = t ^ b, one & a | t & b
                t = s1 ^ c
                s2, c2 = t ^ d, s1 & c | t & d
                t = s2 ^ e
                s3, c3 = t ^ f, s2 & e | t & f
                t = s3 ^ g
                one, c4 = t ^ h, s3 & g | t & h
                t = two ^ c1
                s5, c5 = t ^ c2, two & c1 | t & c2
                t = s5 ^ c3
                two, c6 = t ^ c4, s5 & c3 | t & c4
                t = four ^ c5
                carry = four & c5 | t & c6
                digits[0, j], digits[1, j], digits[2, j] = one, two, t ^ c6
                for k in range(3, _DIGITS):
                    digit = digits[k, j]
                    digits[k, j] = digit ^ carry
                    carry = digit & carry
            since += 1
            if since == 255:  # 8 · 255 + 7 fits into eleven digits
                since = 0
                for k in range(_DIGITS):
                    for j in range(_LANES):
                        word = digits[k, j]
                        for p in range(64):
                            counts[p] += ((word >> p) & 1) << k
                digits[:] = 0
        total = 0.0
        for i in range(row):
            total += lanes[i]
        squares[block] = total
    for k in range(_DIGITS):
        for j in range(_LANES):
            word = digits[k, j]
            for p in range(64):
                counts[p] += ((word >> p) & 1) << k


def _count_reference(x: np.ndarray, m: float, counts: np.ndarray, squares: np.ndarray) -> None:
    for block in range(len(squares)):
        q, rest = _quotients(x[block * REST_BLOCK : (block + 1) * REST_BLOCK], m)
        for p in range(PLANES):
            counts[p] += int((q >> p & 1).sum())
        lanes = np.zeros(-(-len(q) // (8 * _LANES)) * 8 * _LANES)
        lanes[: len(q)] = rest * rest
        squares[block] = np.cumsum(np.cumsum(lanes.reshape(-1, 8 * _LANES), axis=0)[-1])[-1]


@with_gpu_form("bit_planes")
def plane_counts(v: Tensor, m: float) -> tuple[Tensor, Tensor]:
    """(the set bits of planes 1 … 62, int64; Σ rest² of each 65536 neighbours, float64)."""
    x = plain(v)

    def work(_: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        counts, squares = np.zeros(64, dtype=np.int64), np.zeros(-(-(stop - start) // REST_BLOCK))
        _count(x[start:stop], m, counts, squares)
        return counts, squares

    parts = in_chunks(work, len(x), REST_BLOCK)
    counts = np.sum([counts for counts, _ in parts], axis=0)[:PLANES][::-1].copy()
    return torch.from_numpy(counts), torch.from_numpy(np.concatenate([squares for _, squares in parts]))


def _lead_scalar(x: Any, m: float, shift: int, mask: int, out: Any) -> None:
    most = np.int64(2**PLANES - 1)
    for i in range(len(x)):
        q = min(np.int64(abs(np.float64(x[i])) / m * 4611686018427387904.0), most)
        bits = (q >> shift) & mask
        out[i] = -bits if x[i] < 0 else bits


def _lead_reference(x: np.ndarray, m: float, shift: int, mask: int, out: np.ndarray) -> None:
    bits = (_quotients(x, m)[0] >> shift) & mask
    out[:] = np.where(x < 0, -bits, bits)


def bits_dtype(count: int) -> torch.dtype:
    """The smallest signed integer type for `count` bits."""
    return torch.int8 if count <= 7 else torch.int16 if count <= 15 else torch.int64


@with_gpu_form("bit_planes")
def leading_bits(v: Tensor, m: float, level: int, count: int) -> Tensor:
    """sign(v_j) times the integer of the `count` bits of |v_j| / m that end with bit number `level`, on the
    CPU, in the dtype `bits_dtype(count)`.
    """
    x, bits = plain(v), torch.empty(len(v), dtype=bits_dtype(count))
    out = bits.numpy()
    in_chunks(lambda _, low, high: _lead(x[low:high], m, PLANES - level, (1 << count) - 1, out[low:high]), len(x))
    return bits


_count = Loop(_count_scalar, _count_reference)
_lead = Loop(_lead_scalar, _lead_reference)
