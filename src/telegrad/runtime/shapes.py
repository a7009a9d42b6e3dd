"""Granularity for compressors that look at the shapes of tensors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from torch import Tensor

from telegrad.context import Contextual
from telegrad.errors import TelegradWarning
from telegrad.methods.base import Method
from telegrad.runtime.exchange import Exchange
from telegrad.runtime.pieces import Granularity, Piece

__all__ = ["granularity_for", "looks_at_shapes", "warn_of_lost_shapes"]


def granularity_for(method: Method) -> Granularity:
    """What one compressor call sees where the user does not say: a bucket, but one tensor where shapes matter."""
    return "tensor" if looks_at_shapes(method) else "bucket"


def warn_of_lost_shapes(exchange: Exchange, pieces: Sequence[Piece], parameters: Mapping[str, Tensor]) -> None:
    """Warn where a method that looks at shapes is handed matrices as flat vectors."""
    if not looks_at_shapes(exchange.method):
        return
    member, topology = exchange.members[0], exchange.topology
    flat = [
        part.name
        for piece in pieces
        if any(not own.shape for own in topology.as_worker(piece, member))
        for part in piece.parts
        if parameters[part.name].dim() > 1
    ]
    if flat:
        warnings.warn(
            f"{exchange.method} looks at the shapes of tensors, and {len(flat)} of them, {flat[0]} first, reach it as "
            'parts of flat vectors, of which it keeps far less: write granularity="tensor", and a topology that leaves '
            'tensors whole, as "allgather"',
            TelegradWarning,
            stacklevel=4,
        )


def looks_at_shapes(asked: Contextual) -> bool:
    """Whether this method or compressor, or a part of it, treats a matrix otherwise than the vector of its entries."""
    return "shape" in asked.asks
