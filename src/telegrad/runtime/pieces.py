"""Pieces: what one compressor call sees of a model, and how a piece is cut into shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn

from telegrad.errors import ConfigError

__all__ = ["Granularity", "Part", "Piece", "joined_shards", "named_sizes", "pieces_of", "shard_of", "shards_of"]

Granularity = Literal["model", "tensor"]


@dataclass(frozen=True)
class Part:
    """Entries start … stop−1 of the flattened parameter `name`."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Piece:
    """A flat vector made of parts of parameters, one after another; `name` is folded into the keys of its messages."""

    name: str
    parts: tuple[Part, ...]

    @cached_property
    def sizes(self) -> list[int]:
        """The number of entries of every part."""
        return [part.stop - part.start for part in self.parts]

    @cached_property
    def numel(self) -> int:
        """The number of entries."""
        return sum(self.sizes)


def pieces_of(sizes: Sequence[tuple[str, int]], granularity: Granularity) -> list[Piece]:
    """Parameters, given by name and number of entries, as one piece, or a piece for each."""
    parts = [Part(name, 0, size) for name, size in sizes]
    if granularity == "tensor":
        return [Piece(part.name, (part,)) for part in parts]
    return [Piece("model", tuple(parts))]


def named_sizes(model: nn.Module) -> list[tuple[str, int]]:
    """Name and number of entries of the model's parameters, which must be of one dtype."""
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if len(dtypes) != 1:
        raise ConfigError(f"the model has parameters of {len(dtypes)} dtypes; one is allowed here")
    return [(name, parameter.numel()) for name, parameter in model.named_parameters()]


@lru_cache(maxsize=4096)
def shards_of(piece: Piece, count: int) -> tuple[Piece, ...]:
    """The piece in `count` shards: every part is cut evenly, and shard i has the i-th cut of each.

    So which shard an entry belongs to depends on its parameter alone, whatever piece holds it: state that is kept by
    shard survives when a model is cut into other pieces.
    """
    return tuple(
        Piece(
            f"{piece.name}[{i}/{count}]",
            tuple(Part(p.name, *(p.start + (p.stop - p.start) * j // count for j in (i, i + 1))) for p in piece.parts),
        )
        for i in range(count)
    )


def shard_of(vector: Tensor, piece: Piece, index: int, count: int) -> Tensor:
    """The entries of shard `index` of `count` of the piece's flat `vector`."""
    return torch.cat([vector[a:b] for a, b in _places(piece, index, count)])


def joined_shards(shards: Iterable[Tensor], piece: Piece, count: int) -> Tensor:
    """The piece's flat vector from the `count` vectors of its shards."""
    out: Tensor | None = None
    for index, shard in enumerate(shards):
        if out is None:
            out = torch.empty(piece.numel, dtype=shard.dtype, device=shard.device)
        at = 0
        for a, b in _places(piece, index, count):
            out[a:b] = shard[at : at + b - a]
            at += b - a
    assert out is not None
    return out


@lru_cache(maxsize=4096)
def _places(piece: Piece, index: int, count: int) -> list[tuple[int, int]]:
    """Where the parts of a shard lie in the piece's vector."""
    starts = accumulate(piece.sizes, initial=0)
    return [
        (start + size * index // count, start + size * (index + 1) // count)
        for start, size in zip(starts, piece.sizes, strict=False)
    ]
