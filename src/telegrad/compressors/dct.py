"""DeMo's compressor: the largest cosine coefficients of every chunk."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.kernels.marks import largest_in_rows
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import All, marked
from telegrad.wire.values import Cosine, Floats
from telegrad.wire.values.cosine import LONGEST_CHUNK, cosines, runs_of_chunks

__all__ = ["DCT"]


@register("dct", example="dct(chunk=64, k=32)", source="A22; Peng, Quesnelle and Kingma 2024 (DeMo)")
@dataclass(frozen=True)
class DCT(Compressor):
    """C(x): in the orthonormal DCT-II of each `chunk` of adjacent entries, the `k` largest coefficients; ties go to the
    lowest.

    Contractive with alpha = k/chunk (A22). The chunks are those of the flat tensor, whatever its shape, and the last
    one is shorter where d is no multiple: the two-dimensional transform of matrices is left out. Sent: the places of
    the non-zero coefficients and these in the tensor's precision (float32 for 16-bit tensors, whose range a sum of
    entries would leave).
    """

    chunk: int = 64
    k: int = 32

    unbiased = False
    random = False

    def __post_init__(self) -> None:
        check_that(1 <= self.chunk <= LONGEST_CHUNK, self, "chunk", f"1 to {LONGEST_CHUNK} entries are allowed")
        check_that(1 <= self.k <= self.chunk, self, "k", "1 to `chunk` coefficients are allowed")

    def omega(self, d: int) -> float:
        return math.inf

    def alpha(self, d: int) -> float:
        longest = min(self.chunk, d)
        return min(self.k, longest) / longest if d else 1.0

    def _values(self, v: Tensor) -> Cosine:
        d, dtype = len(v), torch.float64 if v.dtype == torch.float64 else torch.float32
        marks, values, n = np.empty(d, dtype=bool), torch.empty(d, dtype=dtype), 0
        # Run by run, so that nothing of the vector's size is made in float64.
        for start, stop in runs_of_chunks(d, self.chunk):
            y = cosines(v[start:stop].double(), self.chunk).numpy()
            own = largest_in_rows(y.reshape(-1, min(self.chunk, stop - start)), self.k).reshape(-1)
            kept = torch.from_numpy(y[own])
            marks[start:stop], values[n : n + len(kept)], n = own, kept, n + len(kept)
        return Cosine(marked(marks), Floats(values[:n]), self.chunk)

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        return Encoded((Term(All(len(v)), self._values(v)),))

    def _variance(self, v: Tensor) -> float:
        return float((self._values(v).numbers() - v.double()).square().sum())
