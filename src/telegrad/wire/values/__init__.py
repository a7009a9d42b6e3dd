"""What the entries of a message are, and how they are packed: one kind a file.

A compressor builds values exactly, in float64; `rounded` makes them sendable without a bias: what a message carries is
rounded stochastically to what its dtype can hold. Scales travel as float32 (float64 in messages of float64 tensors).
"""

from __future__ import annotations

from telegrad.wire.kinds import Kinds
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
    "VALUES",
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
    "shortest_exact",
]

VALUES: Kinds[type[Values]] = Kinds(
    "values", (Floats, Grid, Exponents, Table, Bucketed, Dithered, DitheredPaths, LowRank, Rotated, Cosine)
)
"""The kinds of values by the tag that they have in a message."""
