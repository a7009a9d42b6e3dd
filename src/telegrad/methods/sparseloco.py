"""SparseLoCo: the largest entries of every chunk, two bits each, with a fading error memory."""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.compressors.base import Compressor
from telegrad.compressors.chunk_topk import ChunkTopK
from telegrad.methods.feedback import Feedback
from telegrad.methods.outer_method import OuterMethod
from telegrad.methods.outer_optimizer import OuterOptimizer, OuterSGD
from telegrad.spec import register

__all__ = ["SparseLoCo"]

_COMPRESSOR, _OPTIMIZER, _FEEDBACK = ChunkTopK(), OuterSGD(), Feedback(decay=0.95)


@register("sparseloco", example="sparseloco(every=30)", source="Sarfi et al. 2025 (SparseLoCo, arXiv 2508.15706)")
@dataclass(frozen=True)
class SparseLoCo(OuterMethod):
    """SparseLoCo: an outer loop with error memory and a chunked Top-k of few bins.

    An outer method as published: e ← .95 e + Δ; the 64 largest of each 4096 entries of e in 4 bins are sent, and
    leave e; the mean over all workers moves θ by SGD with lr = 1; H = 30.

    The mean counts who did not send an entry as 0 there. Chunks are of adjacent entries, not squares of matrices.
    The other arguments are those of `outer`.

    Args:
        compressor: by default chunk_topk(chunk=4096, k=64, bins=4).
        optimizer: by default sgd(lr=1.0).
        feedback: by default ef(decay=0.95).

    References:
        Sarfi et al., "Communication Efficient LLM Pre-training with SparseLoCo", 2025, https://arxiv.org/abs/2508.15706
    """

    compressor: Compressor = _COMPRESSOR
    optimizer: OuterOptimizer = _OPTIMIZER
    feedback: Feedback | None = _FEEDBACK
