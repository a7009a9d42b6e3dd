"""The outer loop, all of it chosen."""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.methods.outer_method import OuterMethod
from telegrad.spec import register

__all__ = ["Outer"]


@register(
    "outer",
    example="outer(mlmc(stopk(s=0.01)), every=30)",
    source="Douillard et al. 2023 (DiLoCo, arXiv 2311.08105); fragments, delay and alpha: Douillard et al. 2025 "
    "(Streaming DiLoCo, arXiv 2501.18512)",
)
@dataclass(frozen=True)
class Outer(OuterMethod):
    """An outer loop: local steps of any optimizer, whose total is sent compressed and moved on by an outer optimizer.

    An outer method with any unbiased compressor and no error memory, by default with DiLoCo's outer optimizer."""
