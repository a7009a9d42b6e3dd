"""Error memory around a compressor, as an argument of a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telegrad.compressors.base import Compressor
from telegrad.methods.ef14 import EF14
from telegrad.spec import Registered, check_that, register

__all__ = ["Feedback"]


@register("ef", example="ef(decay=0.95)", source="C4; with decay: Sarfi et al. 2025 (SparseLoCo, arXiv 2508.15706)")
@dataclass(frozen=True)
class Feedback(Registered):
    """e ← decay · e + Δ; C(e) is sent; e ← e − C(e). What was not sent a while ago is forgotten where decay < 1."""

    decay: float = 1.0

    kind: ClassVar[str] = "feedback"

    def __post_init__(self) -> None:
        check_that(0 < self.decay <= 1, self, "decay", "a number in (0, 1] is allowed")

    def around(self, compressor: Compressor, allow_unsupported: bool = False) -> EF14:
        """The method that sends with this memory."""
        return EF14(compressor, self.decay, allow_unsupported=allow_unsupported)
