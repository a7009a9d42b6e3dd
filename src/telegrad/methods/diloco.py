"""DiLoCo: rare, uncompressed differences and Nesterov's momentum outside."""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.methods.outer_method import OuterMethod
from telegrad.spec import register

__all__ = ["DiLoCo"]

_IDENTITY = Identity()


@register("diloco", example="diloco(every=30)", source="Douillard et al. 2023 (DiLoCo, arXiv 2311.08105)")
@dataclass(frozen=True)
class DiLoCo(OuterMethod):
    """DiLoCo: 500 local steps, sent uncompressed, and an outer Nesterov momentum.

    An outer method as published: H = 500 inner steps (AdamW there), uncompressed, Nesterov lr = .7, momentum = .9.

    Its successors use every=30 as well.

    Args:
        compressor: by default identity: nothing is compressed.
        optimizer: by default nesterov(lr=0.7, momentum=0.9).
        every: by default 500.
        fragments: parts of the model, each sent every H steps, one after the other.
        delay: inner steps made while a difference is under way, below H / fragments.
        alpha: share of a worker's own parameters that it keeps at a round, 0 to 1.
        feedback: none, or ef(decay): error memory, for biased compressors.

    References:
        Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models", 2023,
            https://arxiv.org/abs/2311.08105
    """

    compressor: Compressor = _IDENTITY
    every: int = 500
