"""DeMo's compressor: the largest cosine coefficients of every chunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Contractive, Encoded
from telegrad.kernels.coding.bitmaps import largest_in_rows
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import All, marked
from telegrad.wire.values import Cosine, Floats
from telegrad.wire.values.cosine import LONGEST_CHUNK, cosines_of_rows, in_runs

__all__ = ["DCT"]


@register("dct", example="dct(chunk=64, k=32)", source="A22; Peng, Quesnelle and Kingma 2024 (DeMo)")
@dataclass(frozen=True)
class DCT(Contractive):
    """Chunked DCT with Top-k: the largest cosine coefficients of each chunk, as in DeMo.

    C(x): in the orthonormal DCT-II of each `chunk` of adjacent entries, the `k` largest coefficients; ties go to the
    lowest.

    Contractive with alpha = k/chunk (A22). The chunks are those of the flat tensor, whatever its shape, and the last
    one is shorter where d is no multiple: the two-dimensional transform of matrices is left out. Sent: the places of
    the non-zero coefficients and these in the tensor's precision (float32 for 16-bit tensors, whose range a sum of
    entries would leave).

    Args:
        chunk: entries of a chunk.
        k: coefficients kept of each chunk.

    References:
        Peng, Quesnelle and Kingma, "DeMo: Decoupled Momentum Optimization", 2024, https://arxiv.org/abs/2411.19870
    """

    chunk: int = 64
    k: int = 32

    random = False

    def __post_init__(self) -> None:
        check_that(1 <= self.chunk <= LONGEST_CHUNK, self, "chunk", f"1 to {LONGEST_CHUNK} entries are allowed")
        check_that(1 <= self.k <= self.chunk, self, "k", "1 to `chunk` coefficients are allowed")

    def alpha(self, d: int) -> float:
        longest = min(self.chunk, d)
        return min(self.k, longest) / longest if d else 1.0

    def _values(self, v: Tensor) -> Cosine:
        d, dtype = len(v), torch.float64 if v.dtype == torch.float64 else torch.float32
        marks, values = np.empty(d, dtype=bool), torch.empty(-(-d // self.chunk) * self.k, dtype=dtype)

        def kept(start: int, stop: int) -> Tensor:
            rows = cosines_of_rows(v[start:stop].view(-1, min(self.chunk, stop - start))).numpy()
            own = marks[start:stop].reshape(rows.shape)
            largest_in_rows(rows, self.k, own)
            found = torch.from_numpy(rows[own])
            return values[start // self.chunk * self.k :][: len(found)].copy_(found)

        n = 0
        for part in in_runs(kept, d, self.chunk):
            # Each lies where it belongs unless there were zeros before it.
            if part.data_ptr() != values[n:].data_ptr():
                values[n : n + len(part)] = part.clone()
            n += len(part)
        return Cosine(marked(marks), Floats(values[:n]), self.chunk)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        return Encoded((Term(All(len(v)), self._values(v)),))

    def _variance(self, v: Tensor) -> float:
        return float((self._values(v).numbers() - v.double()).square().sum())
