"""Fragments: the parts of a model that an outer method sends one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from telegrad.errors import ConfigError
from telegrad.runtime.pieces import Granularity, Piece, pieces_of

__all__ = ["fragments_of"]


def fragments_of(parameters: Mapping[str, Tensor], count: int, granularity: Granularity) -> list[list[Piece]]:
    """The pieces of `count` fragments: neighbouring parameters, cut where about as many entries lie in each fragment.

    Raises `ConfigError` where there are fewer parameters than fragments.
    """
    if count > len(parameters):
        raise ConfigError(
            f"fragments={count}: the model has {len(parameters)} parameters, so up to fragments={len(parameters)} are "
            "allowed"
        )
    left, total, passed = list(parameters), sum(p.numel() for p in parameters.values()), 0
    fragments = []
    for number in range(1, count + 1):
        own: dict[str, Tensor] = {}
        while len(left) > count - number:  # each of those to come needs one
            name = left[0]
            size = parameters[name].numel()
            end = number * total / count
            if own and number < count and abs(passed + size - end) >= abs(passed - end):
                break
            own[name] = parameters[left.pop(0)]
            passed += size
        fragments.append(_pieces(own, number - 1, count, granularity))
    return fragments


def _pieces(own: Mapping[str, Tensor], number: int, count: int, granularity: Granularity) -> list[Piece]:
    pieces = pieces_of(own, granularity)
    if granularity != "model" or count == 1:
        return pieces
    return [replace(piece, name=f"{piece.name}, fragment {number}") for piece in pieces]
