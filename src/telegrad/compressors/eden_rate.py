"""What rate a message of entropy-coded EDEN has for its symbols, from what all else in it takes."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from telegrad.compressors.message_lengths import head_bits, places_bits, stream_bits
from telegrad.kernels.coding.rans import state_count
from telegrad.kernels.quantising.gaussian_cells import RATES, dead_zone, dead_zone_masses, entropy_coded_omega
from telegrad.kernels.rotation.blocks import LARGEST, block_sizes
from telegrad.wire.bits import SCALARS

__all__ = ["LEAST", "cells_rate", "fixed_part", "rotated_omega", "sent_densely", "shortest_rotated"]

LEAST = 2.0**-10
"""The least rate that is tried."""

_SHORT = 65536


def sent_densely(d: int, nonzero: float) -> bool:
    """Whether a symbol is sent for each of d entries, and not a list of those that are not zero: where that is shorter,
    about. The table and the states of an entropy coder weigh more, the fewer entries there are.
    """
    return d >= 512 and nonzero >= (0.3 if d < 8192 else 1 / 16) * d


def cells_rate(budget: float | np.ndarray, d: int, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """The entropy, in bits an entry, of the symbols of a message of `budget` bits, by estimate: from 2^−10 to 12.

    Below 65,536 entries tables, states of coders and lists of places are a share of the message that depends on the
    rate: there it is the rate at which the expected lengths of all parts add up to the budget.
    """
    if d < _SHORT:
        rates, lengths = _short(d, SCALARS[dtype].size)
        return np.interp(np.asarray(budget, dtype=np.float64), lengths, rates)
    header = fixed_part(d, dtype)
    lanes = 32 * state_count(d)
    rate = (np.asarray(budget) - header) / d
    # Dense symbols carry the states of an entropy coder; the places of few are coded 2 % above their entropy.
    rate = np.where(rate - lanes / d >= 0.3, rate - lanes / d, 0.98 * rate)
    return np.clip(rate, LEAST, 12.0)


def rotated_omega(budget: float | np.ndarray, d: int, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """The expected ‖C(x) − x‖² / ‖x‖² of entropy-coded EDEN in a message of `budget` bits, whatever x is.

    D / (1 − D) of the best dead zone at the message's rate (A21.5). At few bits a block of n entries has one symbol
    alone, its largest entry's: then it is n / m² − 1, m the median of the largest of n normal magnitudes.
    """
    each = entropy_coded_omega(cells_rate(budget, d, dtype))
    if d >= _SHORT:
        return np.minimum(each, _alone(LARGEST))
    sizes = block_sizes(d)
    return sum(size / d * np.minimum(each, _alone(size)) for size in sizes)


def shortest_rotated(d: int, dtype: torch.dtype = torch.float32) -> float:
    """The expected length of the shortest message."""
    if d < _SHORT:
        return float(_short(d, SCALARS[dtype].size)[1][0])
    return fixed_part(d, dtype) + LEAST * d / 0.98


def fixed_part(d: int, dtype: torch.dtype) -> int:
    """The bits of a message beside places and symbols, with what pads them."""
    return 8 * (12 + 10 + 9 + SCALARS[dtype].size * len(block_sizes(d)))


@lru_cache
def _alone(n: int) -> float:
    share = -math.expm1(-math.log(2.0) / n) / 2
    return max(0.0, n / float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64))) ** 2 - 1)


@lru_cache(512)
def _short(d: int, scale_nbytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rates, and the expected length of a message at each; neither falls."""
    rates = np.append(LEAST, RATES[RATES > LEAST])
    head = head_bits(d) + 8 * (8 + 1 + 1 + 9 + scale_nbytes * len(block_sizes(d)))
    lengths = np.maximum.accumulate([head + _expected(d, float(rate)) for rate in rates])
    # Where the form of the message changes its length jumps: up to there the lower rate is all that it has.
    jumps = np.flatnonzero(np.diff(lengths) > 24 + 2 * d * np.diff(rates)) + 1
    return np.insert(rates, jumps, rates[jumps - 1]), np.insert(lengths, jumps, lengths[jumps] - 1e-6)


def _expected(d: int, rate: float) -> float:
    """The expected length of the places and symbols of d normal numbers in the best dead zone at `rate`."""
    mass = dead_zone_masses(*dead_zone(rate))
    share = 2 * float(mass.sum())
    counts, signed = np.repeat(d * mass, 2), np.arange(1, 2 * len(mass) + 1)
    if sent_densely(d, share * d):
        return stream_bits(np.append(0, signed), np.append((1 - share) * d, counts))
    # A block that would have no symbol has one.
    forced = sum((1 - share) ** size for size in block_sizes(d))
    counts[:2] += forced / 2
    return places_bits(d, share * d + forced) + stream_bits(signed - 1, counts)
