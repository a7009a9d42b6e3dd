"""The bins of a histogram of magnitudes: all floats whose keys (see keys.py) share their first bits."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from telegrad.kernels.selection.keys import INTEGERS

__all__ = ["Bins", "bins_of"]


class Bins(NamedTuple):
    """2^`width` bins; bin b holds the magnitudes from smallest[b] to largest[b], float64, which grow by steps[b] from
    key to key. From bin number `infinite` on there are infinity and NaN: these stay empty, and end in numbers.
    """

    width: int
    infinite: int
    smallest: np.ndarray
    largest: np.ndarray
    steps: np.ndarray


@cache
def bins_of(dtype: torch.dtype, width: int) -> Bins:
    """The bins of a dtype's keys by their first `width` bits."""
    integer = INTEGERS[dtype]
    shift = torch.iinfo(integer).bits - 1 - width
    first = torch.arange(1 << width, dtype=torch.int64) << shift
    ends = (keys.to(integer).view(dtype).double().numpy() for keys in (first, first + ((1 << shift) - 1)))
    smallest, largest = (np.where(np.isfinite(end), end, torch.finfo(dtype).max) for end in ends)
    infinite = int(torch.tensor(torch.inf, dtype=dtype).view(integer)) >> shift
    return Bins(width, infinite, smallest, largest, (largest - smallest) / max(1, (1 << shift) - 1))
