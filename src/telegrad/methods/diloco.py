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

    Its successors use every=30 as well. The other arguments are those of `outer`.

    Args:
        compressor: by default identity: nothing is compressed.
        every: by default 500.

    References:
        Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models", 2023,
            https://arxiv.org/abs/2311.08105
    """

    compressor: Compressor = _IDENTITY
    every: int = 500
