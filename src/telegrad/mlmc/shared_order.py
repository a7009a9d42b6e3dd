"""Blocks in an order that all ranks know: no indices are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.compressors.coding import Coding
from telegrad.kernels.coding.scatter import taken
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels
from telegrad.mlmc.stopk import VALUE_BITS, block_edges, fixed_law
from telegrad.spec import Amount, check_amount, register, resolve_amount
from telegrad.wire.code import Term
from telegrad.wire.last_estimate import LastEstimate
from telegrad.wire.positions import Ranked
from telegrad.wire.values import Floats

__all__ = ["SharedOrderLadder"]


@register("shared_order", example="shared_order(s=0.01)", source="B12.3")
@dataclass(frozen=True)
class SharedOrderLadder(Ladder):
    """A ladder in a shared order: runs of s entries in an order that all workers draw alike.

    r_l = v on the l-th run of s entries in an order that does not depend on v, L = ⌈d/s⌉; orthogonal residuals.

    The order is the one of decreasing magnitude of the last estimate, which all ranks have (before the first one, and
    for a compressor by itself, that of the indices). Any order is unbiased; this one makes blocks nearly
    as uneven as `stopk`'s where gradients change slowly and workers are alike, and a message carries its level and s
    values. With `mlmc(…, workers=M)` workers spread their levels evenly. omega(v) <= ⌈d/s⌉ − 1 (B2.5).
    """

    s: Amount
    values: Literal["fp32", "bf16", "log"] = "fp32"

    def __post_init__(self) -> None:
        check_amount(self, "s")

    @property
    def wants_last(self) -> bool:
        return True

    def after(self, last: LastEstimate) -> _AfterLast:
        return _AfterLast(self, last)

    def omega(self, d: int, adaptive: bool) -> float:
        s = resolve_amount(self, "s", d)
        return -(-d // s) - 1 if adaptive else 1 / float(fixed_law(self._sizes(d)).min()) - 1

    def _sizes(self, d: int) -> Tensor:
        return torch.from_numpy(np.diff(block_edges(d, resolve_amount(self, "s", d), 1.0)))

    def levels(self, v: Tensor, order: Tensor | None = None) -> Levels:
        return _Runs(v, block_edges(len(v), resolve_amount(self, "s", len(v)), 1.0), self.values, order)


@dataclass(frozen=True)
class _AfterLast(Ladder):
    """A `ladder` with its order, that of `last`; vectors of another length, parts of what was sent, go without."""

    ladder: SharedOrderLadder
    last: LastEstimate

    def __str__(self) -> str:
        return str(self.ladder)

    @property
    def values(self) -> Coding:
        return self.ladder.values

    def after(self, last: LastEstimate) -> _AfterLast:
        return _AfterLast(self.ladder, last)

    def omega(self, d: int, adaptive: bool) -> float:
        return self.ladder.omega(d, adaptive)

    def levels(self, v: Tensor) -> Levels:
        return self.ladder.levels(v, self.last.order if len(self.last.vector) == len(v) else None)


class _Runs(Levels):
    orthogonal = True

    def __init__(self, v: Tensor, edges: np.ndarray, values: str, order: Tensor | None) -> None:
        self.v, self.edges, self.values, self.order = v, edges, values, order

    def norms(self) -> Tensor:
        magnitude = np.abs(plain(self.v if self.order is None else taken(self.v, self.order)).astype(np.float64))
        starts, sizes = self.edges[:-1], np.diff(self.edges)
        largest = np.maximum.reduceat(magnitude, starts)
        # Relative to its largest entry, a tiny block does not vanish.
        relative = magnitude / np.repeat(np.where(largest > 0, largest, 1.0), sizes)
        return torch.from_numpy(largest * np.sqrt(np.add.reduceat(relative * relative, starts)))

    def costs(self) -> Tensor:
        return torch.from_numpy(MESSAGE_OVERHEAD + np.diff(self.edges) * float(VALUE_BITS[self.values]))

    def fixed_probabilities(self) -> Tensor:
        return fixed_law(torch.from_numpy(np.diff(self.edges)))

    def base(self) -> tuple[Term, ...]:
        return ()

    def residual(self, level: int) -> tuple[Term, ...]:
        start, stop = int(self.edges[level - 1]), int(self.edges[level])
        positions = Ranked(len(self.v), start, stop - start, self.order is not None, self.order)
        return (Term(positions, Floats(taken(self.v, positions.indices()))),)
