"""What `_encode` of a class from outside telegrad returns, looked at: a mistake there is named where it is made, before
numbers go wrong or a message cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from telegrad.errors import InputError
from telegrad.random import Key
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet, Subset
from telegrad.wire.positions.base import Positions
from telegrad.wire.values import DTYPES, Floats
from telegrad.wire.values.base import Values

if TYPE_CHECKING:
    from telegrad.compressors.base import Encoded

__all__ = ["an", "apart", "fault_of_terms", "looked_at"]

_SHAPE = "Encoded((Term(positions, values),)) is wanted"


def looked_at(encode: Callable[[Any, Tensor, Key], Encoded]) -> Callable[[Any, Tensor, Key], Encoded]:
    """`_encode` that raises `InputError` where it returns what is no message for v, or changes v."""

    @wraps(encode)
    def checked(self: Any, v: Tensor, key: Key) -> Encoded:
        tracked = not v.is_inference()
        before = v._version if tracked else 0
        encoded = encode(self, v, key)
        fault = _of_encoded(encoded, v)
        if tracked and v._version != before:
            fault = "changed v in place, which is the caller's own tensor; work on v.clone()"
        if fault:
            raise InputError(f"{type(self).__name__}._encode {fault}")
        return replace(encoded, terms=tuple(_of_its_own(term, v) for term in encoded.terms))

    return checked


def apart(tensor: Tensor, lent: Tensor) -> Tensor:
    """The tensor, or a copy where it lies in the memory of `lent`, which changes when its owner goes on."""
    return tensor.clone() if tensor.untyped_storage().data_ptr() == lent.untyped_storage().data_ptr() else tensor


def _of_its_own(term: Term, v: Tensor) -> Term:
    """The term, whose values lie in memory of their own."""
    if not isinstance(term.values, Floats):
        return term
    value = apart(term.values.value, v)
    return term if value is term.values.value else Term(term.positions, Floats(value))


def _of_encoded(encoded: Any, v: Tensor) -> str:
    """What is wrong with it, as the end of a sentence; empty where nothing is."""
    terms = getattr(encoded, "terms", None)
    if not hasattr(encoded, "level") or not isinstance(terms, tuple | list):
        return f"returned {an(encoded)}; {_SHAPE}"
    if not isinstance(encoded.level, int):
        return f"returned the level {encoded.level!r}; an integer is wanted"
    return next(filter(None, (_of_term(term, len(v), v.dtype) for term in terms)), "")


def fault_of_terms(terms: Any) -> str:
    """What is wrong with the terms of a level, as the end of a sentence; empty where nothing is."""
    if not isinstance(terms, tuple | list):
        return f"returned {an(terms)}; a tuple of terms is wanted, (Term(positions, values),)"
    return next(filter(None, (_of_term(term, None, torch.float64) for term in terms)), "")


def _of_term(term: Any, d: int | None, dtype: torch.dtype) -> str:
    if not isinstance(term, Term):
        return f"returned {an(term)} among the terms; {_SHAPE}"
    positions, values = term.positions, term.values
    if not isinstance(positions, Positions):
        return (
            f"returned a term whose positions are {an(positions)}; All(d), IndexSet(d, indices) or the like is wanted"
        )
    if not isinstance(values, Values):
        return f"returned a term whose values are {an(values)}; Floats(tensor) or the like is wanted"
    fault = _of_positions(positions, positions.d if d is None else d)
    if not fault and isinstance(values, Floats):
        fault = _of_floats(values, dtype)
    if not fault and positions.n != values.n:
        fault = f"returned a term of {positions.n} positions and {values.n} values; as many are wanted"
    return fault


def _of_positions(positions: Positions, d: int) -> str:
    name = type(positions).__name__
    if positions.d != d:
        return f"returned {name} positions among {positions.d} entries; v has {d}"
    if isinstance(positions, Subset) and not (isinstance(positions.seed, int) and 0 < positions.size <= d):
        return f'returned {positions}; a size up to {d} and a seed are wanted, key.fold(role="subset").to_int()'
    if not isinstance(positions, IndexSet):
        return ""
    index: Any = positions.given
    if not isinstance(index, Tensor) or index.dim() != 1 or index.is_floating_point() or index.is_complex():
        return f"returned IndexSet of {an(index)}; a flat tensor of int64 is wanted"
    if index.dtype == torch.bool:
        return "" if len(index) == d else f"returned IndexSet of {len(index)} marks; v has {d} entries"
    if len(index) and not (int(index[0]) >= 0 and int(index[-1]) < d and bool((index[1:] > index[:-1]).all())):
        return f"returned IndexSet of places that do not increase from 0 to {d - 1}; sort them, each once"
    return ""


def _of_floats(values: Floats, dtype: torch.dtype) -> str:
    value: Any = values.value
    if not isinstance(value, Tensor) or value.dim() != 1 or value.dtype not in DTYPES:
        return f"returned Floats of {an(value)}; a flat tensor of floats is wanted"
    if value.dtype.itemsize > dtype.itemsize:
        return (
            f"returned Floats of {value.dtype} for a tensor of {dtype}, which decodes them to nearest; write "
            'Floats(…).rounded(v.dtype, key.fold(role="rounding")), without a bias'
        )
    return ""


def an(thing: Any) -> str:
    """What this is, in words."""
    if isinstance(thing, Tensor):
        return f"a tensor of {thing.dtype} and shape {tuple(thing.shape)}"
    name = type(thing).__name__
    return "None" if thing is None else f"an {name}" if name[0] in "AEIOUaeio" else f"a {name}"
