"""The contract of a compressor."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from telegrad.compressors.unfit import unfit
from telegrad.errors import InputError, NonFiniteError
from telegrad.kernels.device import away_from_default_device, on_gpu
from telegrad.kernels.quantising.narrowing import narrowed
from telegrad.kernels.statistics.magnitudes import largest_magnitude, plain
from telegrad.kernels.threads import each, in_blocks
from telegrad.random import Key
from telegrad.spec import Registered
from telegrad.wire.code import Code, Term
from telegrad.wire.values import DTYPES

__all__ = [
    *("Compressor", "Encoded", "checked", "decoded", "decoded_parts"),
    *("not_finite", "overflows", "representable"),
]

_PLAIN = (Tensor, Parameter)
_PART = 16384  # entries: fewer than torch shares out over threads of its own


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
    here. One that looks at the tensor's shape takes it in `for_shape`.
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

    @abstractmethod
    def alpha(self, d: int) -> float:
        """The largest known constant with E‖C(x) − x‖² <= (1 − alpha) ‖x‖² for all x; 0 where it is not contractive."""

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

    def on_gpu(self, v: Tensor) -> bool:
        """Whether `_encode` takes this v where it lies on a GPU, because every pass over it has a form there; else v
        comes to the CPU first.
        """
        return False

    def checks(self, v: Tensor) -> bool:
        """Whether `_encode` takes this v unchecked, because its own first pass finds out what is not finite."""
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
        elif not hasattr(key, "fold"):
            raise InputError(f"encode(x, {key!r}): a key is wanted, for example tg.Key(seed=0).fold(step=3, rank=1)")
        encoded = self.encoded(x, key)
        code = Code(tuple(x.shape), x.dtype, encoded.terms, encoded.level)
        if not _fits(code):
            raise overflows(self, x.dtype)
        return code

    @away_from_default_device
    def encode_each(self, xs: Tensor | Sequence[Tensor], keys: Sequence[Key]) -> list[Code]:
        """The codes of the rows of a batch (M, d), or of any M tensors, as one `encode` after the other would make them
        with these keys; long ones by several threads. Raises what `encode` raises, for the first one at fault.
        """
        if len(xs) != len(keys):
            raise InputError(f"{len(xs)} tensors and {len(keys)} keys were given: each tensor needs a key of its own")
        size = sum(x.numel() if isinstance(x, Tensor) else 0 for x in xs)
        return each(lambda pair: self.encode(*pair), list(zip(xs, keys, strict=True)), size)

    def encoded(self, x: Tensor, key: Key) -> Encoded:
        """What `encode` sends for `x`, not yet checked for overflow: for compressors that are made of others."""
        flat = flattened(x)
        shaped = self.for_shape(tuple(x.shape))
        # That a vector is not zero shows in its first entries, mostly.
        trusted = flat.numel() and shaped.checks(flat) and (bool(flat[0]) or bool(flat[:64].any()))
        v, shift = (flat, 0) if trusted else _scaled(flat, x)
        if v is None:
            return Encoded(())
        encoded = shaped._encode(v if on_gpu(v) and shaped.on_gpu(v) else v.cpu(), key)
        terms = tuple(term for term in encoded.terms if term.positions.n)
        return Encoded(tuple(_shifted(term, shift) for term in terms) if shift else terms, encoded.level)

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
            return math.ldexp(self.for_shape(tuple(x.shape))._variance(v.cpu()), 2 * shift)
        except OverflowError:
            return math.inf


_TOP = {dtype: torch.finfo(dtype).max for dtype in DTYPES}


def _fits(code: Code) -> bool:
    """Whether the estimate and every term of it are finite in the tensor's dtype; decoded only where it is close."""
    top = _TOP[code.dtype]
    if sum(term.values.largest() for term in code.terms) <= top:
        return True
    peaks = [float(term.values.numbers().abs().max()) for term in code.terms]
    return max(peaks) <= top and (sum(peaks) <= top or bool(code.decode().isfinite().all()))


def flattened(x: Tensor) -> Tensor:
    """x flat and contiguous, a copy only where x is not. Raises `InputError` for what is no dense tensor of floats."""
    plain = isinstance(x, Tensor) and x.dtype in DTYPES and x.layout is torch.strided
    if not plain or x.is_meta or x.is_nested or (type(x) not in _PLAIN and hasattr(x, "to_local")):
        raise unfit(x)
    v = x.detach() if x.requires_grad else x
    return v if v.dim() == 1 and v.is_contiguous() and not v.is_neg() else v.reshape(-1).contiguous().resolve_neg()


def checked(x: Tensor) -> tuple[Tensor | None, int]:
    """x flat, and the binary shift taken out of it; None for a tensor without a non-zero entry.

    Only float64 inputs near the ends of their range are shifted, so that squares neither overflow nor vanish.
    """
    return _scaled(flattened(x), x)


def _scaled(v: Tensor, x: Tensor) -> tuple[Tensor | None, int]:
    """`checked(x)`, where v is x flat."""
    largest = largest_magnitude(v)
    if not math.isfinite(largest):
        raise not_finite(x)
    if largest == 0.0:
        return None, 0
    if v.dtype == torch.float64 and abs(shift := math.frexp(largest)[1]) > 400:
        half = -shift // 2
        return v * 2.0**half * 2.0 ** (-shift - half), shift
    return v, 0


def decoded(encoded: Encoded, like: Tensor) -> Tensor:
    """The sum of the terms as they are sent, float64, in the shape of the flat `like`."""
    out = torch.zeros(len(like), dtype=torch.float64, device=like.device)
    for term in encoded.terms:
        term.add_to(out, 1.0)
    return out


def not_finite(x: Tensor | np.ndarray) -> NonFiniteError:
    """The error for a tensor that cannot be compressed because not all of it is finite."""
    return NonFiniteError(
        f"the tensor of shape {tuple(x.shape)} holds NaN or infinity; skip this step or lower the learning rate"
    )


def overflows(compressor: Compressor, dtype: torch.dtype) -> NonFiniteError:
    """The error for an estimate that `dtype` cannot hold."""
    largest = torch.finfo(dtype).max
    return NonFiniteError(
        f"what {compressor} would send overflows {dtype} (largest {largest:.3g}): scale the tensor down"
    )


Part = Callable[[int, int], Tensor]
"""The entries from the first number to before the second one of a vector that is never made as a whole; float64."""


def decoded_parts(encoded: Encoded, like: Tensor) -> Part:
    """`decoded(encoded, like)`, part by part; `like` on the CPU."""
    if any(term.positions.indices() is None for term in encoded.terms):
        whole = decoded(encoded, like)
        return lambda start, stop: whole[start:stop]
    listed = [(term.positions.indices(), term.values.numbers()) for term in encoded.terms]
    arrays = [(plain(index), plain(numbers)) for index, numbers in listed if index is not None]

    def part(start: int, stop: int) -> Tensor:
        out = np.zeros(stop - start)
        for index, numbers in arrays:
            first, last = np.searchsorted(index, (start, stop))
            out[index[first:last] - start] += numbers[first:last]
        return torch.from_numpy(out)

    return part


def representable(part: Part, n: int, dtype: torch.dtype, key: Key, owner: Compressor) -> Tensor:
    """The n entries of a vector as a tensor of `dtype`, rounded stochastically, for `owner` to compress once more."""
    out = torch.empty(n, dtype=dtype)

    def work(start: int, stop: int) -> None:
        out[start:stop] = narrowed(part(start, stop), dtype, key, start)

    in_blocks(work, n, _PART)
    if not math.isfinite(largest_magnitude(out)):
        raise overflows(owner, dtype)
    return out


def _shifted(term: Term, shift: int) -> Term:
    half = shift // 2
    return term.scaled(2.0**half).scaled(2.0 ** (shift - half))
