"""Blocks in an order that all ranks know: no indices are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.coding.scatter import taken
from telegrad.kernels.statistics.magnitudes import plain
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD, Ladder, Levels
from telegrad.mlmc.stopk import VALUE_BITS, block_edges, fixed_law
from telegrad.spec import Amount, check_amount, register, resolve_amount
from telegrad.wire.code import Term
from telegrad.wire.positions import Ranked, last_order
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

    Args:
        s: entries of a run: a count, or a fraction of d.
        values: how they are coded (B2.7).
    """

    s: Amount
    values: Literal["fp32", "bf16", "log"] = "fp32"

    looks_at = frozenset({"last"})

    def __post_init__(self) -> None:
        check_amount(self, "s")

    def omega(self, d: int, adaptive: bool) -> float:
        s = resolve_amount(self, "s", d)
        return -(-d // s) - 1 if adaptive else 1 / float(fixed_law(self._sizes(d)).min()) - 1

    def _sizes(self, d: int) -> Tensor:
        return torch.from_numpy(np.diff(block_edges(d, resolve_amount(self, "s", d), 1.0)))

    def levels(self, v: Tensor) -> Levels:
        last = self.context.last_estimate
        # Vectors of another length, parts of what was sent, go without the order.
        order = last_order(last) if last is not None and len(last.vector) == len(v) else None
        return _Runs(v, block_edges(len(v), resolve_amount(self, "s", len(v)), 1.0), self.values, order)


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
