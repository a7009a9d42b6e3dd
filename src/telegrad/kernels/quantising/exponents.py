"""Floats by their binary exponents: split into sign, exponent and mantissa, rounded to powers of two, and put together
again. A number is ±2^exponent (1 + mantissa 2^−bits); numbers below 2^−1022 have no leading one and are not for here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.coding.symbols import fixed_width, from_fixed_width
from telegrad.kernels.compilation import Loop
from telegrad.kernels.random_numbers.uniforms import FEW, uniform_at, uniform_source, uniforms_from
from telegrad.kernels.reference import binary_exponent, power_of_two
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import in_blocks, in_chunks
from telegrad.random import Key

__all__ = [
    *("bit_counts", "exponent_range", "has_exponent", "joined", "level_below"),
    *("rounded_to_levels", "rounded_to_powers", "split"),
]

_PIECE = 1 << 15  # entries whose signs and mantissas are unpacked together
_NO_MANTISSA = np.empty(0, dtype=np.uint8)
_MANTISSAS: list[tuple[int, Any]] = [(8, np.uint8), (15, np.int16), (31, np.int32), (62, np.int64)]


def has_exponent(v: Tensor) -> Tensor:
    """Which entries have a leading one: all but zeros and, in float64, the subnormal numbers. bool, where v lies."""
    # 2^−1022 in the other dtypes is 0.
    return (v >= 2.0**-1022) | (v <= -(2.0**-1022)) if v.dtype == torch.float64 else v != 0


def rounded_to_powers(v: Tensor, key: Key) -> tuple[Tensor, Tensor]:
    """(negative, exponent) of ±2^E or ±2^(E+1) for |v_j| = 2^E (1 + f): up where u_j < f, u the stream of the key.

    v: flat, |v_j| >= 2^−1022. bool and int16, on the CPU.
    """
    x, source = plain(v), uniform_source(key, v.numel(), FEW)
    negative, exponent = np.empty(len(x), dtype=bool), np.empty(len(x), dtype=np.int16)
    in_chunks(lambda _, a, b: _power(x[a:b], *source, a, negative[a:b], exponent[a:b]), len(x))
    return torch.from_numpy(negative), torch.from_numpy(exponent)


def rounded_to_levels(v: Tensor, norm: float, levels: int, key: Key) -> Tensor:
    """The signed number of the level that y_j = min(1, |v_j| / norm) is rounded to among 0, 2^(1−s), …, 1/2, 1, s =
    `levels`: of its neighbours the upper one where u_j lies below its share of the way there; int8, on the CPU.
    """
    x, source = plain(v), uniform_source(key, v.numel(), FEW)
    out = np.empty(len(x), dtype=np.int8)
    in_chunks(lambda _, a, b: _level(x[a:b], norm, levels, *source, a, out[a:b]), len(x))
    return torch.from_numpy(out)


def level_below(y: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """The level below each y from 0 to 1 (float64), and how far y is on the way from there to the next."""
    exponent = binary_exponent(torch.where(y > 0, y, 2.0**-60)).clamp(max=0).to(torch.int64)
    level = (exponent + levels).clamp(min=0)
    value = power_of_two(level - levels)
    share = torch.where(level == 0, y / 2.0 ** (1 - levels), torch.where(level < levels, y / value - 1, 0.0))
    return level, share


def exponent_range(v: Tensor) -> tuple[int, int, int]:
    """The least and the greatest binary exponent in flat v, and how many entries have one (`has_exponent`)."""
    x = plain(v)
    parts = in_chunks(lambda _, a, b: _range(x[a:b]), len(x))
    low, high, counts = zip(*parts, strict=True) if parts else ((0,), (0,), (0,))
    return int(min(low)), int(max(high)), int(sum(counts))


def split(v: Tensor, low: int, high: int, first: int = 1, last: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
    """(negative, below, mantissa) of flat v with |v_j| >= 2^−1022 and exponents from `low` to `high`: the signs, by how
    much each exponent lies below `high`, and the bits number `first` to `last` of the mantissa, leading bit first;
    None for no bits.

    `below` uint8 or uint16; signs and bits packed as `fixed_width` does it; on the CPU.
    """
    x, count = plain(v), max(0, last - first + 1)
    below = np.empty(len(x), dtype=np.uint8 if high - low < 256 else np.uint16)
    negative, mantissa = (np.empty((len(x) * width + 7) // 8, dtype=np.uint8) for width in (1, count))
    narrow = next(dtype for most, dtype in _MANTISSAS if count <= most)

    def work(start: int, stop: int) -> None:
        minus = np.empty(stop - start, dtype=bool)
        bits = np.empty(stop - start, dtype=narrow) if count else _NO_MANTISSA
        _split(x[start:stop], high, count, last, minus, below[start:stop], bits)
        negative[start // 8 : (stop + 7) // 8] = fixed_width(minus, 1)
        if count:
            mantissa[start // 8 * count : (stop * count + 7) // 8] = fixed_width(bits, count)

    in_blocks(work, len(x), _PIECE)
    return torch.from_numpy(negative), torch.from_numpy(below), torch.from_numpy(mantissa) if count else None


def joined(
    negative: Tensor, below: Tensor, top: int, mantissa: Tensor | None, bits: int, weight: float, dtype: torch.dtype
) -> Tensor:
    """± 2^(top − below) (1 + weight · mantissa), signs and mantissas of `bits` bits packed as `split` does it, no
    mantissa standing for 0; in float64 and then rounded to float32 or float64. Exponents from −1022 to 1023.
    """
    depths, out = plain(below), np.empty(len(below), dtype=np.float64 if dtype == torch.float64 else np.float32)

    def work(start: int, stop: int) -> None:
        minus = _unpacked(negative, start, stop, 1)
        mantissas = _NO_MANTISSA if mantissa is None else _unpacked(mantissa, start, stop, bits)
        _join(minus, depths[start:stop], top, mantissas, weight, out[start:stop])

    in_blocks(work, len(out), _PIECE)
    return torch.from_numpy(out)


def _unpacked(packed: Tensor, start: int, stop: int, width: int) -> np.ndarray:
    return from_fixed_width(plain(packed)[start // 8 * width : (stop * width + 7) // 8], stop - start, width)


def bit_counts(v: Tensor, low: int, high: int, bits: int) -> Tensor:
    """How many numbers of each exponent from `low` to `high`, among which all of v's are, have each of the first `bits`
    bits of the mantissa set, leading bit first; int64, shape (exponents, bits).
    """
    x = plain(v)

    def work(_: int, start: int, stop: int) -> np.ndarray:
        counts = np.zeros((high - low + 1, bits), dtype=np.int64)
        _count(x[start:stop], low, counts)
        return counts

    return torch.from_numpy(sum(in_chunks(work, len(x))))


def _power_scalar(x, given, offset, inner, first, negative, exponent):  # type: ignore[no-untyped-def]
    wide = np.empty(1)
    bits = wide.view(np.int64)
    for i in range(len(x)):
        wide[0] = x[i]
        fraction = np.float64(bits[0] & 0xFFFFFFFFFFFFF) * 2.0**-52
        below = ((bits[0] >> 52) & 0x7FF) - 1023
        exponent[i] = below + (uniform_at(given, offset, inner, first + i) < fraction)
        negative[i] = bits[0] < 0


def _power_reference(
    x: np.ndarray,
    given: np.ndarray,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    negative: np.ndarray,
    exponent: np.ndarray,
) -> None:
    v = torch.from_numpy(x.astype(np.float64))
    below = binary_exponent(v)
    fraction = (v.abs() / power_of_two(below) - 1).numpy()
    u = uniforms_from(given, offset, inner, first, len(x))
    exponent[:] = below.numpy() + (u < fraction)
    negative[:] = x < 0


def _level_scalar(x, norm, levels, given, offset, inner, first, out):  # type: ignore[no-untyped-def]
    wide = np.empty(1)
    bits = wide.view(np.int64)
    bottom = 2.0 ** (levels - 1)
    for i in range(len(x)):
        wide[0] = min(abs(np.float64(x[i])) / norm, 1.0)
        level = ((bits[0] >> 52) & 0x7FF) - 1023 + levels
        share = np.float64(bits[0] & 0xFFFFFFFFFFFFF) * 2.0**-52
        if level <= 0:
            level, share = 0, wide[0] * bottom
        level += uniform_at(given, offset, inner, first + i) < share
        out[i] = -level if x[i] < 0 else level


def _level_reference(
    x: np.ndarray,
    norm: float,
    levels: int,
    given: np.ndarray,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    out: np.ndarray,
) -> None:
    level, share = level_below(torch.from_numpy(np.minimum(np.abs(x.astype(np.float64)) / norm, 1.0)), levels)
    u = uniforms_from(given, offset, inner, first, len(x))
    level += torch.from_numpy(u) < share
    out[:] = np.where(x < 0, -level.numpy(), level.numpy())


def _range_scalar(x):  # type: ignore[no-untyped-def]
    wide = np.empty(1)
    whole = wide.view(np.int64)
    low, high, count = 2047, 0, 0
    for i in range(len(x)):
        wide[0] = x[i]
        exponent = (whole[0] >> 52) & 0x7FF
        high = max(high, exponent)
        low = min(low, exponent if exponent else 2047)
        count += exponent != 0
    return low - 1023, high - 1023, count


def _range_reference(x: np.ndarray) -> tuple[int, int, int]:
    v = torch.from_numpy(x.astype(np.float64))
    exponent = binary_exponent(v[has_exponent(v)])
    # Of none, what gives way to any other.
    return (int(exponent.min()), int(exponent.max()), len(exponent)) if len(exponent) else (1024, -1023, 0)


def _split_scalar(x, high, count, last, negative, below, mantissa):  # type: ignore[no-untyped-def]
    wide = np.empty(1)
    whole = wide.view(np.int64)
    mask = (np.int64(1) << count) - 1
    for i in range(len(x)):
        wide[0] = x[i]
        below[i] = high + 1023 - ((whole[0] >> 52) & 0x7FF)
        negative[i] = whole[0] < 0
        if len(mantissa):
            mantissa[i] = ((whole[0] & 0xFFFFFFFFFFFFF) >> (52 - last)) & mask


def _split_reference(
    x: np.ndarray, high: int, count: int, last: int, negative: np.ndarray, below: np.ndarray, mantissa: np.ndarray
) -> None:
    v = torch.from_numpy(x.astype(np.float64))
    exponent = binary_exponent(v)
    negative[:], below[:] = x < 0, high - exponent.numpy()
    if len(mantissa):
        bits = ((v.abs() / power_of_two(exponent) - 1) * 2.0**last).to(torch.int64)
        mantissa[:] = (bits & (1 << count) - 1).numpy()


def _join_scalar(negative, below, top, mantissa, weight, out):  # type: ignore[no-untyped-def]
    bits = np.empty(1, dtype=np.int64)
    power = bits.view(np.float64)
    for i in range(len(out)):
        bits[0] = (top + 1023 - np.int64(below[i])) << 52
        value = power[0]
        if len(mantissa):
            value += value * (np.float64(mantissa[i]) * weight)
        out[i] = -value if negative[i] else value


def _join_reference(
    negative: np.ndarray, below: np.ndarray, top: int, mantissa: np.ndarray, weight: float, out: np.ndarray
) -> None:
    power = power_of_two(torch.from_numpy(top - below.astype(np.int64))).numpy()
    value = power + power * (mantissa * weight) if len(mantissa) else power
    with np.errstate(over="ignore"):
        out[:] = np.where(negative != 0, -value, value)


def _count_scalar(x, low, counts):  # type: ignore[no-untyped-def]
    wide = np.empty(1)
    whole = wide.view(np.int64)
    for i in range(len(x)):
        wide[0] = x[i]
        row = counts[((whole[0] >> 52) & 0x7FF) - 1023 - low]
        for bit in range(len(row)):
            row[bit] += (whole[0] >> (51 - bit)) & 1


def _count_reference(x: np.ndarray, low: int, counts: np.ndarray) -> None:
    bits = counts.shape[1]
    v = torch.from_numpy(x.astype(np.float64))
    exponent = binary_exponent(v)
    mantissa = ((v.abs() / power_of_two(exponent) - 1) * 2.0**bits).to(torch.int64)
    for bit in range(bits):
        chosen: Any = exponent[(mantissa >> (bits - 1 - bit)) & 1 == 1].to(torch.int64).numpy() - low
        counts[:, bit] += np.bincount(chosen, minlength=len(counts))


_power = Loop(_power_scalar, _power_reference, uses=[uniform_at])
_level = Loop(_level_scalar, _level_reference, uses=[uniform_at])
_range = Loop(_range_scalar, _range_reference)
_split = Loop(_split_scalar, _split_reference)
_join = Loop(_join_scalar, _join_reference)
_count = Loop(_count_scalar, _count_reference)
