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

    An outer method with any unbiased compressor and no error memory, by default with DiLoCo's outer optimizer.

    Args:
        compressor: of the differences, unbiased unless there is feedback.
        optimizer: of the global parameters, such as nesterov(lr=0.7, momentum=0.9).
        every: H, the inner steps between two rounds of a fragment.
        fragments: parts of the model, each sent every H steps, one after the other.
        delay: inner steps made while a difference is under way, below H / fragments.
        alpha: share of a worker's own parameters that it keeps at a round, 0 to 1.
        feedback: none, or ef(decay): error memory, for biased compressors.

    References:
        Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models", 2023,
            https://arxiv.org/abs/2311.08105
        Douillard et al., "Streaming DiLoCo with overlapping communication: Towards a Distributed Free Lunch", 2025,
            https://arxiv.org/abs/2501.18512
    """
