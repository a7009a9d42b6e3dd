"""What the entries of a message are, and how they are packed: one kind a file.

A compressor builds values exactly, in float64; `rounded` makes them sendable without a bias: what a message carries is
rounded stochastically to what its dtype can hold. Scales travel as float32 (float64 in messages of float64 tensors).
"""

from __future__ import annotations

import torch

from telegrad.errors import WireError
from telegrad.wire.bits import Reader
from telegrad.wire.values.base import DTYPES, Values
from telegrad.wire.values.bucketed import Bucketed
from telegrad.wire.values.cells import DeadZoneCells, LloydMaxCells
from telegrad.wire.values.cosine import Cosine
from telegrad.wire.values.dithered import Dithered
from telegrad.wire.values.dithered_paths import DitheredPaths
from telegrad.wire.values.exponents import Exponents
from telegrad.wire.values.floats import Floats
from telegrad.wire.values.grid import Grid
from telegrad.wire.values.low_rank import LowRank
from telegrad.wire.values.rotated import Rotated, RotatedCells
from telegrad.wire.values.table import Table, shortest_exact
from telegrad.wire.values.trellis import TrellisCells

__all__ = [
    "DTYPES",
    "Bucketed",
    "Cosine",
    "DeadZoneCells",
    "Dithered",
    "DitheredPaths",
    "Exponents",
    "Floats",
    "Grid",
    "LloydMaxCells",
    "LowRank",
    "Rotated",
    "RotatedCells",
    "Table",
    "TrellisCells",
    "Values",
    "kind_of",
    "read_values",
    "shortest_exact",
]

_KINDS: dict[int, type[Values]] = {
    cls.tag: cls
    for cls in (
        *(Floats, Grid, Exponents, Table, Bucketed, Dithered, DitheredPaths),
        *(LowRank, Rotated, Cosine),
    )
}


def kind_of(tag: int) -> type[Values]:
    """The kind of values with that tag. Raises `WireError` where there is none."""
    if tag not in _KINDS:
        raise WireError(f"unknown kind of values {tag} in the message")
    return _KINDS[tag]


def read_values(tag: int, reader: Reader, n: int, dtype: torch.dtype) -> Values:
    """Read n values of kind `tag` in a message for a tensor of `dtype`."""
    values = kind_of(tag).read(reader, n, dtype)
    reader.book("value")
    return values
