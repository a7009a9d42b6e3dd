"""What ladders from outside telegrad return, looked at: a level that is left out would bias every estimate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from telegrad.compressors.coding import Coding
from telegrad.compressors.returned import an, fault_of_terms
from telegrad.errors import InputError
from telegrad.wire.code import Term

if TYPE_CHECKING:
    from telegrad.mlmc.ladder import Ladder, Levels

__all__ = ["LEVELS", "looked_at_ladder"]

_WHOLE = 1e-6
"""So much of ‖v‖ may lack where all levels are added up: what float32 rounds off, far less than a level."""

_tried: set[tuple[type, int]] = set()
"""The classes, and numbers of entries, whose levels were added up once."""


def looked_at_ladder(levels: Callable[[Any, Tensor], Levels]) -> Callable[[Any, Tensor], Levels]:
    """`levels` of a ladder that raises `InputError` where, the first time for so many entries, base and residuals do
    not add up to v or a level's norm is 0 that is not.
    """

    @wraps(levels)
    def checked(self: Ladder, v: Tensor) -> Levels:
        made: Any = levels(self, v)
        if (type(self), len(v)) not in _tried:
            fault = _of_levels(self, made, v)
            if fault:
                raise InputError(f"{type(self).__name__}.levels(v) {fault}")
            _tried.add((type(self), len(v)))
        return made

    return checked


def _of_levels(ladder: Ladder, levels: Any, v: Tensor) -> str:
    if not hasattr(levels, "residual"):
        return f"returned {an(levels)}; an object of a class below telegrad.mlmc.Levels is wanted"
    if ladder.values not in get_args(Coding):
        return f"cannot be coded: values={ladder.values!r}; allowed are {', '.join(get_args(Coding))}"
    norms, squares = levels.norms(), levels.second_moments()
    lengths = {"norms": len(norms), "costs": len(levels.costs()), "probabilities": len(levels.fixed_probabilities())}
    if len(set(lengths.values())) > 1:
        return f"has {', '.join(f'{n} {name}' for name, n in lengths.items())}; one for each level is wanted"
    energy, total = float(v.double().square().sum()), torch.zeros(len(v), dtype=torch.float64)
    for level in range(len(norms) + 1):
        part = torch.zeros_like(total)
        for term in levels.residual(level) if level else levels.base():
            if term.positions.d != len(v):
                return f"has a term among {term.positions.d} entries at level {level}; v has {len(v)}"
            term.add_to(part, 1.0)
        total += part
        if level and float(norms[level - 1]) == 0.0 and part.any():
            return f"has a norm of 0 for level {level}, which is not zero: it would never be sent"
        square = float(part.square().sum())
        if level and ladder.values == "fp32" and not abs(float(squares[level - 1]) - square) <= _WHOLE * energy:
            return (
                f"has the squared norm {float(squares[level - 1]):.6g} at level {level}, where residual({level}) has "
                f"{square:.6g}: write second_moments(), too, where norms() are approximate"
            )
    lacks = float((total - v.double().cpu()).norm()) / energy**0.5
    if not lacks <= _WHOLE:
        return (
            f"has levels that do not add up to v: base() and residual(1) … residual({len(norms)}) miss {lacks:.2g} ‖v‖"
        )
    return ""


def _numbers(name: str, method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(method)
    def checked(self: Levels) -> Tensor:
        numbers: Any = method(self)
        fault = ""
        if not isinstance(numbers, Tensor) or numbers.dim() != 1 or not numbers.is_floating_point():
            fault = "a flat tensor of float64, an entry a level, is wanted"
        elif not bool((numbers >= 0).all() if name == "norms" else (numbers > 0).all()) or not numbers.isfinite().all():
            fault = f"finite numbers {'from' if name == 'norms' else 'above'} 0 are wanted"
        elif name == "fixed_probabilities" and abs(float(numbers.sum()) - 1) > _WHOLE:
            fault = "probabilities that sum to 1 are wanted"
        if fault:
            shown = numbers.tolist() if isinstance(numbers, Tensor) else an(numbers)
            raise InputError(f"{type(self).__name__}.{name}() returned {shown}: {fault}")
        return numbers.double()

    return checked


def _terms(name: str, method: Callable[..., tuple[Term, ...]]) -> Callable[..., tuple[Term, ...]]:
    @wraps(method)
    def checked(self: Levels, *level: int) -> tuple[Term, ...]:
        terms = method(self, *level)
        fault = fault_of_terms(terms)
        if fault:
            raise InputError(f"{type(self).__name__}.{name}({', '.join(map(str, level))}) {fault}")
        return tuple(terms)

    return checked


LEVELS: dict[str, Callable[[Any], Any]] = {
    **{name: partial(_numbers, name) for name in ("norms", "costs", "fixed_probabilities")},
    **{name: partial(_terms, name) for name in ("base", "residual")},
}
"""What makes the functions of a class below `Levels` raise `InputError` for what does not fit their contract."""
