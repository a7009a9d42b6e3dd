"""The contract of a compressor."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from telegrad.errors import InputError, NonFiniteError
from telegrad.random import Key
from telegrad.spec import Registered
from telegrad.wire.code import Code, Term
from telegrad.wire.values import DTYPES

__all__ = ["Compressor", "Encoded", "checked"]


@dataclass(frozen=True)
class Encoded:
    """What a compressor makes of a vector: the terms to send and, for MLMC, the level drawn."""

    terms: tuple[Term, ...]
    level: int = 0


class Compressor(Registered, ABC):
    """Maps a tensor of d entries to a `Code`, and a code back to an estimate of the tensor. Frozen, without state.

    A compressor says what it is. `unbiased`: E C(x) = x for every x, and E‖C(x) − x‖² <= omega(d) ‖x‖².
    Contractive: E‖C(x) − x‖² <= (1 − alpha(d)) ‖x‖². Whoever combines compressors asks this at construction.

    Subclasses implement `_encode` and `_variance` on flat, finite, non-zero vectors; the unhappy inputs are handled
    here.
    """

    kind: ClassVar[str] = "compressor"

    @property
    @abstractmethod
    def unbiased(self) -> bool:
        """Whether E C(x) = x for every x."""

    @property
    @abstractmethod
    def random(self) -> bool:
        """Whether `encode` draws random numbers, and so needs a key."""

    @abstractmethod
    def omega(self, d: int) -> float:
        """The smallest known constant with E‖C(x) − x‖² <= omega ‖x‖² for all x of d entries; inf for a biased
        compressor.
        """

    @abstractmethod
    def alpha(self, d: int) -> float:
        """The largest known constant with E‖C(x) − x‖² <= (1 − alpha) ‖x‖² for all x; 0 where it is not contractive."""

    @abstractmethod
    def _encode(self, v: Tensor, key: Key) -> Encoded:
        """The terms for flat, contiguous, finite, non-zero `v` of shape (d,)."""

    @abstractmethod
    def _variance(self, v: Tensor) -> float:
        """E‖C(v) − v‖² for such a `v`."""

    def encode(self, x: Tensor, key: Key | None = None) -> Code:
        """Compress `x` (any shape; float32, float64, bfloat16 or float16) with the randomness of `key`.

        Same x and key, same code, on any device and thread count. Zero and empty tensors cost only the header.
        Raises `NonFiniteError` where x holds NaN or infinity or an estimate would overflow x's dtype, `SpecError`
        where the compressor does not fit d entries (k > d), `InputError` for other dtypes or a missing key.
        """
        if key is None:
            if self.random:
                raise InputError(f"{self} draws random numbers: pass a key, for example encode(x, tg.Key(seed=0))")
            key = Key()
        v, shift = checked(x)
        encoded = self._encode(v, key) if v is not None else Encoded(())
        terms = tuple(_shifted(term, shift) for term in encoded.terms if term.positions.n) if shift else encoded.terms
        code = Code(tuple(x.shape), x.dtype, tuple(term for term in terms if term.positions.n), encoded.level)
        largest = torch.finfo(x.dtype).max
        for term in code.terms:
            if not bool((term.values.numbers().abs() <= largest).all()):
                raise NonFiniteError(
                    f"what {self} would send overflows {x.dtype} (largest {largest:.3g}): scale the tensor down"
                )
        return code

    def decode(self, code: Code) -> Tensor:
        """The estimate that `code` stands for, in x's shape and dtype; `code.add_to` accumulates without a dense
        temporary.
        """
        return code.decode()

    def variance(self, x: Tensor) -> float:
        """E‖C(x) − x‖², exactly, for this very x (in squared units of x; from a closed form, not by sampling).

        inf where float64 cannot hold the square.
        """
        v, shift = checked(x)
        if v is None:
            return 0.0
        try:
            return math.ldexp(self._variance(v), 2 * shift)
        except OverflowError:
            return math.inf


def checked(x: Tensor) -> tuple[Tensor | None, int]:
    """x flat, and the binary shift taken out of it; None for a tensor without a non-zero entry.

    Only float64 inputs near the ends of their range are shifted, so that squares neither overflow nor vanish.
    """
    if not isinstance(x, Tensor) or x.dtype not in DTYPES:
        given = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InputError(
            f"a tensor of {given} cannot be compressed; allowed are {', '.join(map(str, DTYPES))}: write x.float()"
        )
    v = x.detach().reshape(-1)
    if v.numel() == 0:
        return None, 0
    largest = float(torch.linalg.vector_norm(v, ord=math.inf))
    if not math.isfinite(largest):
        raise NonFiniteError(
            f"the tensor of shape {tuple(x.shape)} holds NaN or infinity; skip this step or lower the learning rate"
        )
    if largest == 0.0:
        return None, 0
    shift = math.frexp(largest)[1]
    if v.dtype == torch.float64 and abs(shift) > 400:
        half = -shift // 2
        return v * 2.0**half * 2.0 ** (-shift - half), shift
    return v, 0


def _shifted(term: Term, shift: int) -> Term:
    half = shift // 2
    return term.scaled(2.0**half).scaled(2.0 ** (shift - half))
