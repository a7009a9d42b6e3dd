"""SparseLoCo's compressor: the largest entries of every chunk, in a few bins."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Contractive, Encoded, decoded
from telegrad.kernels.coding.bitmaps import largest_in_rows
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import marked
from telegrad.wire.values import Floats, Table, Values

__all__ = ["ChunkTopK"]

_REACH = 3.0  # standard deviations of the kept entries that the bins cover on either side of 0


@register(
    "chunk_topk", example="chunk_topk(chunk=4096, k=64)", source="Sarfi et al. 2025 (SparseLoCo, arXiv 2508.15706)"
)
@dataclass(frozen=True)
class ChunkTopK(Contractive):
    """Chunked Top-k: the k entries of largest magnitude of each chunk, sent by bins, as in SparseLoCo.

    C(x) keeps the `k` largest magnitudes of each `chunk` of adjacent entries, ties going to the first, and sends for
    each in which of `bins` it lies; an entry stands for the mean of its bin.

    The bins are of one width and reach from −3σ to 3σ, σ² the mean square of the kept entries; the outermost take what
    lies beyond. Their means are sent once, in the tensor's precision (float32 for 16-bit tensors).

    Contractive: of a chunk's energy at least k/chunk is kept; of that, with bins, what `alpha` says: entries of the two
    inner bins are at most w = 6σ/bins, and those of any other bin lie within a ratio b/a of each other, of whose energy
    their mean keeps 4ab/(a + b)². The chunks are those of the flat tensor, whatever its shape; the last may be shorter.

    Args:
        chunk: entries of a chunk.
        k: entries kept of each chunk.
        bins: an even number, so that each bin has one sign; None sends the kept entries as they are.

    References:
        Sarfi et al., "Communication Efficient LLM Pre-training with SparseLoCo", 2025, https://arxiv.org/abs/2508.15706
    """

    chunk: int = 4096
    k: int = 64
    bins: int | None = 4

    random = False

    def __post_init__(self) -> None:
        check_that(self.chunk >= 1, self, "chunk", "a number of entries from 1 is allowed")
        check_that(1 <= self.k <= self.chunk, self, "k", "1 to `chunk` entries are allowed")
        even = self.bins is None or (4 <= self.bins <= 256 and self.bins % 2 == 0)
        check_that(even, self, "bins", "an even number from 4 to 256, or none, is allowed")

    def alpha(self, d: int) -> float:
        if d == 0:
            return 1.0
        longest = min(self.chunk, d)
        share = min(self.k, longest) / longest
        if self.bins is None:
            return share
        kept = d // self.chunk * self.k + min(self.k, d % self.chunk)
        w = 2 * _REACH / self.bins  # in units of σ, in which the kept energy is `kept` and no entry exceeds its root
        a, b = _REACH - w, max(_REACH - w, math.sqrt(kept))
        outside = min(8 / 9, 4 * a * b / (a + b) ** 2)  # 8/9: from w to 2w
        # A share e in the inner bins keeps (e/w)², by Cauchy and Schwarz; the least of that plus (1 − e) outside:
        e = min(1.0, outside * w * w / 2)
        return share * min(1.0, (e / w) ** 2 + (1 - e) * outside)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        marks, x = np.empty(len(v), dtype=bool), plain(v.double())
        whole = len(v) // self.chunk * self.chunk
        for start, stop in ((0, whole), (whole, len(v))):
            if stop > start:
                shape = (-1, min(self.chunk, stop - start))
                largest_in_rows(x[start:stop].reshape(shape), self.k, marks[start:stop].reshape(shape))
        kept = x[marks]
        values: Values = self._binned(kept) if self.bins is not None else Floats(v[torch.from_numpy(marks)])
        return Encoded((Term(marked(marks), values.rounded(v.dtype, None)),))

    def _binned(self, kept: np.ndarray) -> Table:
        assert self.bins is not None
        half, deviation = self.bins // 2, math.sqrt(float(np.square(kept).mean()))
        if deviation > 0:
            outward = np.minimum(np.ceil(np.abs(kept) * (half / (_REACH * deviation))), half).clip(1)
        else:  # squares vanish, or there is nothing
            outward = np.ones(len(kept))
        number = np.where(kept > 0, half - 1 + outward, half - outward).astype(np.int64)
        counts, sums = (np.bincount(number, weights, minlength=self.bins) for weights in (None, kept))
        means = sums / np.maximum(counts, 1)
        return Table(torch.from_numpy(number.astype(np.uint8)), torch.from_numpy(means))

    def _variance(self, v: Tensor) -> float:
        return float((decoded(self._encode(v, Key()), v) - v.double()).square().sum())
