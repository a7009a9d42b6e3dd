"""One block of a short vector, drawn by its norm and found, in one call.

A histogram, the blocks' norms, their law, the draw and the window of ranks are loops of their own
(keys.py, rank_blocks.py, rank_windows.py, random_numbers/weighted_draws.py); here they are one compiled function, made
of the very same parts.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import NonFiniteError
from telegrad.kernels.compilation import Loop
from telegrad.kernels.random_numbers.weighted_draws import draw, draw_scalar, proportional, proportional_scalar
from telegrad.kernels.selection.bins import bins_of
from telegrad.kernels.selection.by_rank import SMALL, MagnitudeHistogram, common_from
from telegrad.kernels.selection.keys import SHORT_BITS, in_one_call
from telegrad.kernels.selection.rank_blocks import block_norms, norms_scalar
from telegrad.kernels.selection.rank_windows import counts_scalar, window_scalar
from telegrad.random import Key

__all__ = ["drawn_block"]


def drawn_block(
    v: Tensor, edges: np.ndarray, power: int, reserve: float, least: float, key: Key
) -> tuple[int, np.ndarray, np.ndarray] | None:
    """(the level l that the key's number draws in proportion to `block_norms`, the indices of the block's entries,
    increasing, and v_j / p_l for these, float64); None where the vector is not short, float32, finite and in memory,
    its largest magnitude is below `least`, or many of its magnitudes are alike: then the parts must do it.

    `edges`: the ranks between blocks, from 0 to d; `power`, `reserve`: as in `block_norms`.
    """
    if v.numel() < SMALL or not in_one_call(v):
        return None
    width, infinite, smallest, largest, _ = bins_of(v.dtype, SHORT_BITS)
    found = _drawn(v.numpy(), width, infinite, smallest, largest, edges, power, reserve, least, key.number())
    return found if found[0] else None


def _drawn_scalar(  # type: ignore[no-untyped-def]
    v, width, infinite, smallest, largest, edges, power, reserve, least, u
):
    nothing = (0, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))
    counts, top = counts_scalar(v, width, infinite)
    if top < 0 or largest[top] < least:
        return nothing
    norms = np.empty(len(edges) - 1)
    law = np.empty(len(norms))
    norms_scalar(counts[0], smallest, largest, edges, power, reserve, norms)
    proportional_scalar(norms, law)
    level = draw_scalar(law, u)
    keys, mask, start, stop = v.view(np.int32), np.int32(0x7FFFFFFF), edges[level - 1], edges[level]
    index = window_scalar(keys, mask, 31 - width, counts[0], top, start, stop, common_from(len(v)))
    if len(index) == 0:
        return nothing
    values, weight = np.empty(len(index), dtype=np.float64), 1 / law[level - 1]
    for i in range(len(index)):
        values[i] = v[index[i]] * weight
    return level, index, values


def _drawn_reference(
    v: np.ndarray,
    width: int,
    infinite: int,
    smallest: np.ndarray,
    largest: np.ndarray,
    edges: np.ndarray,
    power: int,
    reserve: float,
    least: float,
    u: float,
) -> tuple[int, np.ndarray, np.ndarray]:
    nothing = (0, np.empty(0, dtype=np.int64), np.empty(0))
    try:
        histogram = MagnitudeHistogram(torch.from_numpy(v))
    except NonFiniteError:
        return nothing
    if histogram.top() < least:
        return nothing
    law = proportional(block_norms(histogram.counts, smallest, largest, edges, power, reserve))
    level = draw(law, u)
    index = histogram.short_window(int(edges[level - 1]), int(edges[level]))
    return (level, index, v[index] * (1 / law[level - 1])) if len(index) else nothing


_drawn = Loop(
    _drawn_scalar,
    _drawn_reference,
    uses=[counts_scalar, norms_scalar, proportional_scalar, draw_scalar, window_scalar, common_from],
)
