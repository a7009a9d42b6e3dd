"""The contract of values, and how scales travel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from telegrad.kernels.quantising.narrowing import narrowed_number
from telegrad.kernels.statistics.magnitudes import largest_magnitude
from telegrad.random import Key
from telegrad.wire.bits import DTYPES, Buffer, Reader

__all__ = [
    "DTYPES",
    "Sizes",
    "Values",
    "largest_of",
    "round_scalar",
    "scalar_dtype",
]

Sizes = dict[str, int]
"""Bytes by field of the ledger: header, index, value, sign, scale."""


class Values(ABC):
    """n numbers, in the order of their positions."""

    tag: ClassVar[int]

    @property
    @abstractmethod
    def n(self) -> int:
        """How many numbers."""

    @abstractmethod
    def numbers(self) -> Tensor:
        """The numbers, shape (n,): float64, or the dtype they are sent in."""

    def numbers_as(self, dtype: torch.dtype) -> Tensor:
        """`numbers()` rounded to `dtype`."""
        return self.numbers().to(dtype)

    def add_to(self, out: Tensor, weight: float) -> None:
        """out += weight · `numbers_as(out.dtype)`, in place; `out` of shape (n,), on any device."""
        out.add_(self.numbers_as(out.dtype).to(out.device), alpha=weight)

    @abstractmethod
    def largest(self) -> float:
        """A bound on every number's magnitude, without decoding; it need not be sharp."""

    @abstractmethod
    def scaled(self, factor: float) -> Values:
        """All numbers times `factor`."""

    @abstractmethod
    def rounded(self, dtype: torch.dtype, key: Key | None) -> Values:
        """These numbers as a message for a tensor of `dtype` can carry them: unbiased with a key, to nearest
        without.
        """

    @abstractmethod
    def sizes(self, dtype: torch.dtype) -> Sizes:
        """Bytes of `write(dtype)` by field."""

    def write(self, dtype: torch.dtype) -> bytes:
        """The packed numbers; n and dtype are known from elsewhere in the message."""
        return b"".join(self.parts(dtype))

    @abstractmethod
    def parts(self, dtype: torch.dtype) -> list[Buffer]:
        """`write(dtype)` in pieces, in their order, so that long ones are copied once, into the message; those that the
        messages of a parcel share are marked as `Shared`.
        """

    def shared_bytes(self, dtype: torch.dtype) -> bytes:
        """The `Shared` ones of `parts(dtype)`, joined."""
        return b""

    @classmethod
    @abstractmethod
    def read(cls, reader: Reader, n: int, dtype: torch.dtype) -> Values:
        """The inverse of `write`: n values in a message for a tensor of `dtype`. Raises `WireError`.

        What is not booked as another field while it is read counts as values.
        """


def largest_of(numbers: Tensor) -> float:
    """max |numbers| of integers or floats, 0 where there are none."""
    if numbers.is_floating_point():
        return largest_magnitude(numbers)
    if numbers.is_cuda:
        low, high = numbers.aminmax() if len(numbers) else (0, 0)
        return float(max(-int(low), int(high)))
    integers = numbers.numpy()
    return float(max(-int(integers.min(initial=0)), int(integers.max(initial=0))))


scalar_dtype: Callable[[torch.dtype], torch.dtype] = {
    dtype: torch.float64 if dtype == torch.float64 else torch.float32 for dtype in DTYPES
}.__getitem__
"""The dtype that scales of a message for a dtype travel in: float32, float64 for float64."""


def round_scalar(value: float, dtype: torch.dtype, key: Key | None) -> float:
    """A scale as a message can carry it: rounded stochastically with a key, to nearest without."""
    return narrowed_number(value, scalar_dtype(dtype), key)
