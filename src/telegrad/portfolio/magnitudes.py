"""What a vector's magnitudes are, in bins: all that predictions look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from telegrad.kernels.histograms.by_ratio import MagnitudeSums, magnitude_sums

__all__ = ["Magnitudes"]


@dataclass(frozen=True)
class Magnitudes:
    """A vector's non-zero magnitudes in bins of 1/64 octave, largest first: how many, their sums and sums of squares.

    One pass over the vector gives it; all predictions are made from it.
    """

    d: int
    count: np.ndarray
    total: np.ndarray
    square: np.ndarray
    width: int = 32
    """Bits of an entry as it is."""

    @staticmethod
    def of(v: Tensor) -> Magnitudes:
        """Those of a flat, non-zero vector; entries smaller than the histogram tells from zero count as zero."""
        return Magnitudes.in_order(magnitude_sums(v), 8 * v.element_size())

    @staticmethod
    def in_order(histogram: MagnitudeSums, width: int) -> Magnitudes:
        """The bins of a histogram that are not empty."""
        count, total, square = (x[:0:-1] for x in (histogram.count, histogram.total, histogram.square))
        kept = count > 0
        return Magnitudes(histogram.d, count[kept].astype(np.float64), total[kept], square[kept], width)

    @property
    def nonzero(self) -> int:
        """How many entries are not zero."""
        return int(self.count.sum())

    @property
    def mean(self) -> np.ndarray:
        """The mean magnitude of each bin."""
        return self.total / self.count

    @property
    def energy(self) -> float:
        """‖v‖²."""
        return float(self.square.sum())
