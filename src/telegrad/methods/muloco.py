"""MuLoCo: DiLoCo around Muon."""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.methods.outer_method import OuterMethod
from telegrad.methods.outer_optimizer import OuterNesterov, OuterOptimizer
from telegrad.spec import register

__all__ = ["MuLoCo"]

_IDENTITY, _NESTEROV = Identity(), OuterNesterov(lr=0.9, momentum=0.8)


@register("muloco", example="muloco(fragments=2)", source="Thérien et al. 2025 (MuLoCo, arXiv 2505.23725)")
@dataclass(frozen=True)
class MuLoCo(OuterMethod):
    """MuLoCo: DiLoCo with fewer local steps, of Muon.

    DiLoCo with H = 30, an outer Nesterov of lr = .9 and momentum = .8, meant for Muon as the inner optimizer.

    The inner optimizer is the user's: torch.optim.Muon (from torch 2.9 on) for the matrices within the model, AdamW for
    the rest. The other arguments are those of `outer`.

    Args:
        compressor: by default identity: nothing is compressed.
        optimizer: by default nesterov(lr=0.9, momentum=0.8).

    References:
        Thérien et al., "MuLoCo: Muon is a practical inner optimizer for DiLoCo", 2025, https://arxiv.org/abs/2505.23725
    """

    compressor: Compressor = _IDENTITY
    optimizer: OuterOptimizer = _NESTEROV
