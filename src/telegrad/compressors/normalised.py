"""A vector under a random rotation, block by block, each block brought to about N(0, 1)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.inputs import not_finite
from telegrad.kernels.rotation.hadamard import Rotation
from telegrad.kernels.statistics.magnitudes import plain, sums_of_squares_in
from telegrad.random import Key
from telegrad.wire.positions import Positions
from telegrad.wire.values import RotatedCells
from telegrad.wire.values.cells import Cells

__all__ = ["Normalised"]


class Normalised:
    """The rotation of v that the key says, each block normalised to a mean square of 1: about N(0, 1)."""

    def __init__(self, v: Tensor, key: Key) -> None:
        self.x, self.seed = plain(v), key.fold(role="rotation").to_int()
        self.rotation = Rotation(len(v), self.seed)
        # (‖x_b‖² / the root of the mean square) of each block
        self.lengths = np.zeros(len(self.rotation.sizes))

    def block(self, number: int) -> np.ndarray:
        """z of that block; lasts until this thread's next call."""
        y, c = self.rotation.block(self.x, number)
        energy = float(sums_of_squares_in(y, len(y))[0])
        if not math.isfinite(energy):
            raise not_finite(self.x)
        deviation = math.sqrt(energy / len(y))
        if deviation > 0:
            y *= y.dtype.type(1 / deviation)
        self.lengths[number] = math.sqrt(energy * len(y)) / c
        return y

    def carried(self, positions: Positions, cells: Cells, matches: list[float]) -> RotatedCells:
        """The message of these cells, with the scales ‖x_b‖² / ⟨q_b, y_b⟩; `matches`: the ⟨q_b, z_b⟩."""
        match = np.array(matches)
        scales = np.where(self.lengths > 0, self.lengths / np.where(self.lengths > 0, match, 1.0), 0.0)
        return RotatedCells(positions, cells, self.seed, torch.from_numpy(scales))
