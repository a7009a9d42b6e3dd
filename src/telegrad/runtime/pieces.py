"""Pieces: what one compressor call sees of a model, and how a piece is cut into shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from telegrad.errors import ConfigError

__all__ = [
    "BUCKET_BYTES",
    "Granularity",
    "Part",
    "Piece",
    "by_parameter",
    "joined_shards",
    "pieces_of",
    "shard_of",
    "shards_of",
    "split_up",
]

Granularity = Literal["model", "bucket", "tensor"]
BUCKET_BYTES = 25 * 2**20
"""How large a bucket may grow; DDP's own default."""


@dataclass(frozen=True)
class Part:
    """Entries start … stop−1 of the flattened parameter `name`."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Piece:
    """A flat vector made of parts of parameters, one after another; `name` is folded into the keys of its messages.

    `shape`: that of the parameter where the piece is one parameter, for compressors that look at it.
    """

    name: str
    parts: tuple[Part, ...]
    shape: tuple[int, ...] = field(default=(), compare=False)

    @cached_property
    def flat_shape(self) -> tuple[int]:
        """The shape of its vector."""
        return (self.numel,)

    @cached_property
    def sizes(self) -> list[int]:
        """The number of entries of every part."""
        return [part.stop - part.start for part in self.parts]

    @cached_property
    def numel(self) -> int:
        """The number of entries."""
        return sum(self.sizes)


def pieces_of(
    parameters: Mapping[str, Tensor], granularity: Granularity, bucket_bytes: int = BUCKET_BYTES
) -> list[Piece]:
    """The parameters as one piece ("model"), a piece for each ("tensor"), or in buckets.

    A bucket takes parameters of one dtype, from the last one on, since their gradients come first, until the next would
    make it larger than `bucket_bytes`. DDP's own buckets move after its first step; these never do, so that runs can be
    resumed and repeated. Raises `ConfigError` where a model of several dtypes is to be one piece.
    """
    parts = [Part(name, 0, p.numel()) for name, p in parameters.items()]
    if granularity == "tensor":
        return [Piece(part.name, (part,), tuple(parameters[part.name].shape)) for part in parts]
    dtypes = list(dict.fromkeys(p.dtype for p in parameters.values()))
    if granularity == "model":
        if len(dtypes) > 1:
            raise ConfigError(
                f"granularity=model makes one vector of parameters of {len(dtypes)} dtypes; write granularity=bucket"
            )
        return [Piece("model", tuple(parts))]
    if granularity != "bucket":
        raise ConfigError(f"granularity={granularity!r}: model, bucket or tensor is allowed")
    return [
        piece
        for dtype in dtypes
        for piece in _buckets([part for part in parts if parameters[part.name].dtype == dtype], dtype, bucket_bytes)
    ]


def _buckets(parts: Sequence[Part], dtype: torch.dtype, bucket_bytes: int) -> list[Piece]:
    buckets: list[list[Part]] = []
    filled = 0
    for part in reversed(parts):
        size = part.stop * dtype.itemsize
        if not buckets or filled + size > bucket_bytes:
            buckets.append([])
            filled = 0
        buckets[-1].append(part)
        filled += size
    return [Piece("..".join(dict.fromkeys((one[0].name, one[-1].name))), tuple(one)) for one in buckets]


def split_up(flat: Tensor, parameters: Mapping[str, Tensor], pieces: Sequence[Piece]) -> list[Tensor]:
    """The pieces' vectors, from one of all parameters in their order."""
    views = dict(zip(parameters, flat.split([p.numel() for p in parameters.values()]), strict=True))
    if len(pieces) == 1 and [part.name for part in pieces[0].parts] == list(views):
        return [flat]
    own = [[views[part.name] for part in piece.parts] for piece in pieces]
    return [one[0] if len(one) == 1 else torch.cat(one) for one in own]


def by_parameter(vectors: Sequence[Tensor], pieces: Sequence[Piece]) -> dict[str, Tensor]:
    """Flat views of the pieces' vectors by parameter."""
    return {
        part.name: view
        for piece, vector in zip(pieces, vectors, strict=True)
        for part, view in zip(piece.parts, vector.split(piece.sizes), strict=True)
    }


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


def joined_shards(shards: Sequence[Tensor], piece: Piece, count: int, room: Tensor | None = None) -> Tensor:
    """The piece's flat vector from the `count` vectors of its shards; in `room`, where that is such a vector."""
    first, shape = shards[0], piece.flat_shape
    fits = room is not None and (room.shape, room.dtype, room.device) == (shape, first.dtype, first.device)
    out = room if room is not None and fits else torch.empty(shape, dtype=first.dtype, device=first.device)
    for index, shard in enumerate(shards):
        at = 0
        for a, b in _places(piece, index, count):
            out[a:b] = shard[at : at + b - a]
            at += b - a
    return out


@lru_cache(maxsize=4096)
def _places(piece: Piece, index: int, count: int) -> list[tuple[int, int]]:
    """Where the parts of a shard lie in the piece's vector."""
    starts = accumulate(piece.sizes, initial=0)
    return [
        (start + size * index // count, start + size * (index + 1) // count)
        for start, size in zip(starts, piece.sizes, strict=False)
    ]
