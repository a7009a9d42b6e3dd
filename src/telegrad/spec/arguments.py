"""Checks that classes make of their arguments' values, and amounts: counts or fractions of entries."""

from __future__ import annotations

from telegrad.errors import SpecError
from telegrad.spec.registered import Registered

__all__ = ["Amount", "check_amount", "check_that", "resolve_amount"]

Amount = int | float
"""A number of entries: a float up to 1 is a fraction of d, an integer is a count."""


def check_that(condition: bool, owner: Registered, name: str, allowed: str) -> None:
    """Raise `SpecError` for argument `name` of `owner` unless `condition`; `allowed` says what would be right."""
    if not condition:
        cls = type(owner)
        raise SpecError(f"{cls.spec_name}({name}={getattr(owner, name)}): {allowed}; for example `{cls.example}`")


def check_amount(owner: Registered, *names: str, of: str = "d") -> None:
    """Refuse `Amount` arguments that are neither a positive count nor a fraction in (0, 1] `of` all, nor None."""
    for name in names:
        value = getattr(owner, name)
        fits = value is None or (value >= 1 if isinstance(value, int) else 0.0 < value <= 1.0)
        check_that(
            fits, owner, name, f"a count (an integer from 1) or a fraction of {of} (a float in (0, 1]) is allowed"
        )


def resolve_amount(owner: Registered, name: str, d: int) -> int:
    """The number of entries an `Amount` argument means for a vector of d: a fraction is rounded, and is at least one
    entry.

    Raises `SpecError` where a count exceeds d.
    """
    value = getattr(owner, name)
    if isinstance(value, float):
        return min(d, max(1, round(value * d)))
    if value > d:
        cls = type(owner)
        raise SpecError(
            f"{cls.spec_name}({name}={value}) exceeds the d = {d} entries of the vector; "
            f"write a count up to {d}, or a fraction such as {name}=0.01"
        )
    return value
