"""The contract of a compressor, and what follows for those that are unbiased and those that are contractive."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, is_tensor
from torch.nn.parameter import is_lazy

from telegrad.compressors.inputs import checked, flattened, not_finite, scaled_down, scaled_up
from telegrad.compressors.returned import looked_at
from telegrad.compressors.shortcuts import Shortcuts
from telegrad.context import Context, Contextual
from telegrad.errors import InputError, NonFiniteError
from telegrad.kernels.device import away_from_default_device, on_gpu
from telegrad.kernels.threads import each
from telegrad.random import Key
from telegrad.spec import wrap_own
from telegrad.wire.code import Code, Term
from telegrad.wire.values import DTYPES

__all__ = ["Compressor", "Contractive", "Encoded", "Unbiased", "decoded", "overflows"]


@dataclass(frozen=True)
class Encoded:
    """What a compressor makes of a vector: the terms to send and, for MLMC, the level drawn."""

    terms: tuple[Term, ...]
    level: int = 0


class Compressor(Contextual, Shortcuts, ABC):
    """Maps a tensor of d entries to a `Code`, and a code back to an estimate of the tensor. Frozen, without state.

    A compressor says what it is. `unbiased`: E C(x) = x for every x, and E‖C(x) − x‖² <= omega(d) ‖x‖².
    Contractive: E‖C(x) − x‖² <= (1 − alpha(d)) ‖x‖². Whoever combines compressors asks this at construction.

    Subclasses implement `_encode` and `_variance` on flat, finite, non-zero vectors; the unhappy inputs are handled
    here. They derive from `Unbiased` or `Contractive`, or from this where arguments decide which it is. One that
    `looks_at` the rank, the step or the like finds it in `self.context`.
    """

    kind: ClassVar[str] = "compressor"

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        wrap_own(cls, {"_encode": looked_at})

    @property
    @abstractmethod
    def unbiased(self) -> bool:
        """Whether E C(x) = x for every x."""

    @property
    @abstractmethod
    def random(self) -> bool:
        """Whether `encode` draws random numbers, and so needs a key."""

    @property
    def exact(self) -> bool:
        """Whether the declared law holds exactly at every d. False where it is that of large d, as for random
        rotations: then E C(x) = x up to a small share of ‖x‖, and `variance` and `omega` are predictions.
        """
        return True

    @abstractmethod
    def omega(self, d: int) -> float:
        """The smallest known constant with E‖C(x) − x‖² <= omega ‖x‖² for all x of d entries; inf for a biased
        compressor.
        """

    def alpha(self, d: int) -> float:
        """The largest known constant with E‖C(x) − x‖² <= (1 − alpha) ‖x‖² for all x of d entries; 0 where it is not
        contractive. What follows from omega, unless a subclass knows more.
        """
        return max(0.0, 1 - self.omega(d))

    def eta(self, d: int) -> float:
        """A constant with ‖E C(x) − x‖ <= eta ‖x‖ for all x of d entries (0.5); inf where none is known."""
        if self.unbiased:
            return 0.0
        alpha = self.alpha(d)
        return math.sqrt(1 - alpha) if alpha > 0 else math.inf

    def spread(self, d: int) -> float:
        """A constant with E‖C(x) − E C(x)‖² <= spread ‖x‖² (the ω of (0.5)); `omega` where C is unbiased."""
        if self.unbiased:
            return self.omega(d)
        if not self.random:
            return 0.0
        alpha = self.alpha(d)
        return 1 - alpha if alpha > 0 else math.inf

    @property
    def projects(self) -> bool:
        """Whether C is not random, and C(x) and x − C(x) are orthogonal for every x."""
        return False

    @abstractmethod
    def _encode(self, v: Tensor, key: Key) -> Encoded:
        """The terms for flat, contiguous, non-zero `v` of shape (d,): finite, unless this `checks`."""

    @abstractmethod
    def _variance(self, v: Tensor) -> float:
        """E‖C(v) − v‖² for such a `v`."""

    def _mean(self, v: Tensor) -> Tensor:
        """E C(v) for such a `v`, float64. To be written where C is both biased and random."""
        if self.unbiased:
            return v.double()
        if self.random:
            raise NotImplementedError(f"{type(self).__name__} does not say what its mean is")
        return decoded(self._encode(v, Key()), v)

    @away_from_default_device
    def encode(self, x: Tensor, key: Key | None = None, context: Context | None = None) -> Code:
        """Compress `x` (any shape; float32, float64, bfloat16 or float16) with the randomness of `key`.

        Same x, key and context, same code, on any device and thread count. Zero and empty tensors cost only the header.
        `context`: whose tensor this is, for those that look at it; by default what the key was folded with tells, and
        x's shape. Raises `NonFiniteError` where x holds NaN or infinity or an estimate would overflow x's dtype,
        `SpecError` where the compressor does not fit d entries (k > d), `InputError` for other dtypes or a missing key.
        """
        if key is None:
            if self.random:
                raise InputError(f"{self} draws random numbers: pass a key, for example encode(x, tg.Key(seed=0))")
            key = Key()
        elif not hasattr(key, "fold"):
            raise InputError(f"encode(x, {key!r}): a key is wanted, for example tg.Key(seed=0).fold(step=3, rank=1)")
        if context is not None and not isinstance(context, Context):
            raise InputError(
                f"encode(x, key, {context!r}): a context is wanted, for example tg.Context(rank=0, workers=4)"
            )
        encoded, bound = self.encoded(x, key, context), 0.0
        code = Code(tuple(x.shape), x.dtype, encoded.terms, encoded.level)
        for term in encoded.terms:
            bound += term.values.largest()
        if not bound <= _TOP[x.dtype] and not _fits(code):
            raise overflows(self, x.dtype)
        return code

    @away_from_default_device
    def encode_each(self, xs: Tensor | Sequence[Tensor], keys: Sequence[Key]) -> list[Code]:
        """The codes of the rows of a batch (M, d), or of any M tensors, as one `encode` after the other would make them
        with these keys; long ones by several threads. Raises what `encode` raises, for the first one at fault.
        """
        if not isinstance(xs, Sequence | Tensor) or not isinstance(keys, Sequence) or (is_tensor(xs) and xs.dim() < 2):
            raise InputError("encode_each takes tensors, or the rows of one (M, d), and a key for each of them")
        if len(xs) != len(keys):
            raise InputError(f"{len(xs)} tensors and {len(keys)} keys were given: each tensor needs a key of its own")
        size = sum(x.numel() if isinstance(x, Tensor) and not is_lazy(x) else 0 for x in xs)
        return each(lambda pair: self.encode(*pair), list(zip(xs, keys, strict=True)), size)

    def encoded(self, x: Tensor, key: Key, context: Context | None = None) -> Encoded:
        """What `encode` sends for `x`, not yet checked for overflow: for compressors that are made of others."""
        flat = flattened(x)
        bound = self._bound(key, context, x) if self.asks else self
        kind = (flat.numel(), flat.dtype)
        checks = bound._checked.get(kind)
        if checks is None:
            checks = bound._checked[kind] = bool(kind[0]) and bound.checks(flat)
        # That a vector is not zero shows in its first entries, mostly.
        v, shift = (flat, 0) if checks and (bool(flat[0]) or bool(flat[:64].any())) else scaled_down(flat, x)
        if v is None:
            return Encoded(())
        if not v.is_cpu and not (on_gpu(v) and bound.on_gpu(v)):
            v = v.cpu()
        try:
            encoded = bound._encode(v, key)
        except NonFiniteError:
            if not checks:
                raise
            raise not_finite(x) from None  # in its own shape
        terms = [term for term in encoded.terms if term.positions.n]
        return Encoded(tuple([scaled_up(term, shift) for term in terms] if shift else terms), encoded.level)

    @cached_property
    def _checked(self) -> dict[tuple[int, torch.dtype], bool]:
        """What `checks` said, by number of entries and dtype."""
        return {}

    def _bound(self, key: Key, given: Context | None, x: Tensor) -> Compressor:
        """This within the context given, or the one that it is in, completed by what the key tells."""
        whole = (given or self.context).completed(key, tuple(x.shape))
        return self if whole is self.context else self.within(whole)

    def decode(self, code: Code) -> Tensor:
        """The estimate that `code` stands for, in x's shape and dtype; `code.add_to` accumulates without a dense
        temporary.
        """
        if not isinstance(code, Code):
            raise InputError(
                f"decode takes a code, not a {type(code).__name__}: write decode(tg.unpack(data)) for bytes"
            )
        return code.decode()

    @away_from_default_device
    def variance(self, x: Tensor) -> float:
        """E‖C(x) − x‖², exactly, for this very x (in squared units of x; from a closed form, not by sampling).

        inf where float64 cannot hold the square.
        """
        v, shift = checked(x)
        if v is None:
            return 0.0
        try:
            return max(math.ldexp(self._bound(Key(), None, x)._variance(v.cpu()), 2 * shift), 0.0)
        except OverflowError:
            return math.inf


class Unbiased(Compressor):
    """A compressor with E C(x) = x for every x. It says its `omega`; alpha, eta and spread follow."""

    unbiased = True

    @property
    def random(self) -> bool:
        return True


class Contractive(Compressor):
    """A biased compressor with E‖C(x) − x‖² <= (1 − alpha(d)) ‖x‖². It says its `alpha`; eta and spread follow, and
    omega is infinite.
    """

    unbiased = False

    def omega(self, d: int) -> float:
        return math.inf

    @abstractmethod
    def alpha(self, d: int) -> float:
        """The largest known constant with E‖C(x) − x‖² <= (1 − alpha) ‖x‖² for all x of d entries."""


_TOP = {dtype: torch.finfo(dtype).max for dtype in DTYPES}


def _fits(code: Code) -> bool:
    """Whether the estimate and every term of it are finite in the tensor's dtype; decoded only where it is close."""
    top = _TOP[code.dtype]
    peaks = [float(term.values.numbers().abs().max()) for term in code.terms]
    return max(peaks) <= top and (sum(peaks) <= top or bool(code.decode().isfinite().all()))


def decoded(encoded: Encoded, like: Tensor) -> Tensor:
    """The sum of the terms as they are sent, float64, in the shape of the flat `like`."""
    out = torch.zeros(len(like), dtype=torch.float64, device=like.device)
    for term in encoded.terms:
        term.add_to(out, 1.0)
    return out


def overflows(compressor: Compressor, dtype: torch.dtype) -> NonFiniteError:
    """The error for an estimate that `dtype` cannot hold."""
    largest = torch.finfo(dtype).max
    return NonFiniteError(
        f"what {compressor} would send overflows {dtype} (largest {largest:.3g}): scale the tensor down"
    )
