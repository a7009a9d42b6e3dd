"""Floats in their own precision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import WireError
from telegrad.kernels.quantising.narrowing import narrowed
from telegrad.kernels.statistics.magnitudes import largest_magnitude, plain
from telegrad.random import Key
from telegrad.wire.bits import Buffer, Reader, Shared
from telegrad.wire.values.base import DTYPES, Sizes, Values

__all__ = ["Floats"]

_IN_NUMPY = (torch.float32, torch.float64, torch.float16)


@dataclass(frozen=True)
class Floats(Values):
    """Numbers as they are, in their own float dtype: 16, 32 or 64 bits each."""

    tag: ClassVar[int] = 1
    value: Tensor = field(repr=False)
    top: float | None = field(default=None, compare=False, repr=False)
    """The largest magnitude, where it is known already."""

    @property
    def n(self) -> int:
        return self.value.numel()

    def numbers(self) -> Tensor:
        return self.value

    def numbers_as(self, dtype: torch.dtype) -> Tensor:
        return self.value.to(dtype)

    def add_to(self, out: Tensor, weight: float) -> None:
        out.add_(self.value.to(out.dtype).to(out.device), alpha=weight)

    def largest(self) -> float:
        return largest_magnitude(self.value) if self.top is None else self.top

    def scaled(self, factor: float) -> Floats:
        with np.errstate(over="ignore"):  # an estimate that overflows is refused when it is encoded
            return Floats(torch.from_numpy(np.multiply(plain(self.value), factor, dtype=np.float64)))

    def rounded(self, dtype: torch.dtype, key: Key | None) -> Floats:
        if self.value.dtype == dtype:
            return self
        return Floats(narrowed(self.value, dtype, key))

    def sizes(self, dtype: torch.dtype) -> Sizes:
        return {"header": 1, "value": self.n * self.value.element_size()}

    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        value = self.value.detach().cpu().contiguous()
        raw = (value if value.dtype in _IN_NUMPY else value.view(torch.int16)).numpy().data
        return [self.shared_bytes(dtype), raw]

    def shared_bytes(self, dtype: torch.dtype) -> bytes:
        return Shared([DTYPES.index(self.value.dtype)])

    @classmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Floats:
        """The inverse of `write`."""
        code = reader.shared.byte()
        reader.book("header")
        if code >= len(DTYPES):
            raise WireError(f"unknown dtype {code} in the message")
        raw = bytearray(reader.take(n * DTYPES[code].itemsize))
        return cls(torch.frombuffer(raw, dtype=DTYPES[code]) if n else torch.zeros(0, dtype=DTYPES[code]))
