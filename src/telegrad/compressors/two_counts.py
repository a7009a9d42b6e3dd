"""Contractive compressors of two counts of entries, k and k′."""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.compressors.base import Contractive
from telegrad.spec import Amount, check_amount

__all__ = ["TwoCounts"]


@dataclass(frozen=True)
class TwoCounts(Contractive):
    """k and, as `k2`, k′: counts, or fractions of d; where k′ is none it follows from k."""

    k: Amount
    k2: Amount | None = None

    random = True

    def __post_init__(self) -> None:
        check_amount(self, "k", "k2")
