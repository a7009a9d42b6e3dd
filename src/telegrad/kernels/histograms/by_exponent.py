"""Entries by their binary exponents: how many have each and with what energy, and draws with a probability for each.

Energies are of mantissas, v_j / 2^exponent: no square overflows or vanishes. Subnormal float64 numbers count as of
exponent −1022, with mantissas below 1; zeros are of no exponent.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.compilation import Loop
from telegrad.kernels.random_numbers.uniforms import FEW, uniform_at, uniform_source, uniforms_from
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.kernels.threads import in_blocks, in_chunks
from telegrad.random import Key

__all__ = ["drawn_by_exponent", "energies", "exponent_of"]

_EXPONENTS, _LOWEST = 2047, 1023
_BLOCK = 1 << 18  # entries that are summed apart, whatever the number of threads


def energies(v: Tensor) -> tuple[int, np.ndarray, np.ndarray]:
    """The largest exponent, and for it and every lower one that occurs or lies between: the number of entries, int64,
    and Σ (v_j / 2^exponent)², float64. v: flat, finite, not zero.
    """
    x = plain(v)

    def work(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        count, energy = np.zeros(_EXPONENTS, dtype=np.int64), np.zeros(_EXPONENTS)
        _gather(x[start:stop], count, energy)
        return count, energy

    blocks = in_blocks(work, len(x), _BLOCK)
    count, energy = (np.sum([block[which] for block in blocks], axis=0) for which in (0, 1))
    used = np.flatnonzero(count)
    return int(used[-1]) - _LOWEST, count[used[0] : used[-1] + 1][::-1], energy[used[0] : used[-1] + 1][::-1]


def exponent_of(v: Tensor) -> np.ndarray:
    """Every entry's exponent, int64; that of zeros says nothing."""
    bits = v.double().cpu().numpy().view(np.int64)
    return np.maximum((bits >> 52) & 0x7FF, 1) - _LOWEST


def drawn_by_exponent(v: Tensor, top: int, probability: np.ndarray, key: Key) -> Tensor:
    """The indices of the non-zero entries with u_j < probability[top − exponent of v_j], u the stream of the key;
    int64, increasing, on the CPU.
    """
    x, source = plain(v), uniform_source(key, v.numel(), FEW)
    of_exponent = np.zeros(_EXPONENTS)
    of_exponent[top + _LOWEST - np.arange(len(probability))] = probability
    marks = np.empty(len(x), dtype=bool)
    in_chunks(lambda _, a, b: _draw(x[a:b], of_exponent, *source, a, marks[a:b]), len(x))
    return torch.from_numpy(np.flatnonzero(marks))


def _gather_scalar(x, count, energy):  # type: ignore[no-untyped-def]
    wide = np.empty(1)
    bits = wide.view(np.int64)
    for i in range(len(x)):
        wide[0] = x[i]
        if wide[0] != 0.0:
            number = (bits[0] >> 52) & 0x7FF
            if number == 0:
                number, wide[0] = 1, wide[0] * 2.0**1022
            else:
                bits[0] = (bits[0] & 0xFFFFFFFFFFFFF) | (1023 << 52)
            count[number] += 1
            energy[number] += wide[0] * wide[0]


def _gather_reference(x: np.ndarray, count: np.ndarray, energy: np.ndarray) -> None:
    wide = np.abs(x[x != 0].astype(np.float64))
    number = np.maximum((wide.view(np.int64) >> 52) & 0x7FF, 1)
    mantissa = np.ldexp(wide, _LOWEST - number)
    count += np.bincount(number, minlength=len(count))
    energy += np.bincount(number, mantissa * mantissa, len(energy))


def _draw_scalar(x, of_exponent, given, offset, inner, first, marks):  # type: ignore[no-untyped-def]
    wide = np.empty(1)
    bits = wide.view(np.int64)
    for i in range(len(x)):
        wide[0] = x[i]
        probability = of_exponent[max((bits[0] >> 52) & 0x7FF, 1)]
        marks[i] = (wide[0] != 0.0) & (uniform_at(given, offset, inner, first + i) < probability)


def _draw_reference(
    x: np.ndarray,
    of_exponent: np.ndarray,
    given: np.ndarray,
    offset: np.uint64,
    inner: np.uint64,
    first: int,
    marks: np.ndarray,
) -> None:
    number = np.maximum((x.astype(np.float64).view(np.int64) >> 52) & 0x7FF, 1)
    u = uniforms_from(given, offset, inner, first, len(x))
    marks[:] = (x != 0) & (u < of_exponent[number])


_gather = Loop(_gather_scalar, _gather_reference)
_draw = Loop(_draw_scalar, _draw_reference, uses=[uniform_at])
