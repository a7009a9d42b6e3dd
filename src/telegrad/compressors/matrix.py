"""What compressors and ladders of low rank share: how a tensor is read as a matrix."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from telegrad.spec import Registered, check_that

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ReadsMatrix"]


class ReadsMatrix(Registered):
    """Reads a tensor as a matrix of `rows` rows: its first dimension against all others, ⌊√d⌋ rows of a flat one."""

    rank: int
    rows: int | None

    def __post_init__(self) -> None:
        check_that(self.rank >= 1, self, "rank", "a number from 1 is allowed")
        check_that(self.rows is None or self.rows >= 1, self, "rows", "a number from 1 is allowed")

    def for_shape(self, shape: tuple[int, ...]) -> Self:
        fits = self.rows is None and len(shape) > 1 and shape[0]
        return replace(self, rows=shape[0]) if fits else self  # type: ignore[type-var]

    def _rows(self, d: int) -> int:
        return max(1, min(d, self.rows or math.isqrt(d)))
