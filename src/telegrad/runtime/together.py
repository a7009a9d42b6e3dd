"""Gradients that several workers ask for at one and the same point, computed at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from telegrad.runtime.flat import FlatModel
from telegrad.runtime.gradients import Gradients
from telegrad.runtime.oracle import TaskOracle
from telegrad.runtime.pieces import split_up

__all__ = ["Together"]


@dataclass
class _Point:
    """A point that was asked for in this step: by whom, and what is known there of those who have not asked yet."""

    x: Tensor
    asked: set[int] = field(default_factory=set)
    known: dict[int, tuple[Tensor, float]] = field(default_factory=dict)


class Together:
    """Computes for many oracles at once what methods ask of them one by one.

    Once two workers have asked for gradients at the same point (the same tensor), each on the sample with which it
    entered the step, the others are expected to do so, too, and their gradients are computed together. What a method
    sees is the same, to rounding. For models without buffers.
    """

    def __init__(self, oracles: Mapping[int, TaskOracle], compute: Gradients, flat: FlatModel) -> None:
        self.oracles, self.compute, self.flat = oracles, compute, flat
        self._points: dict[tuple[int, bool], _Point] = {}
        self._cohort: Sequence[int] = ()
        for oracle in oracles.values():
            oracle.together = self

    def begin(self, cohort: Sequence[int]) -> None:
        """Enter a step in which the workers of these ranks take part."""
        self._cohort, self._points = cohort, {}

    def find(self, rank: int, x: Tensor, full: bool) -> tuple[Tensor, float] | None:
        """Worker `rank`'s gradient at x and its loss, on its present sample or (`full`) all its examples; None where it
        has to compute for itself.
        """
        if not self._fits(rank, full):
            return None
        point = self._points.setdefault((id(x), full), _Point(x))
        if rank in point.known:
            return point.known.pop(rank)
        alone = not point.asked or rank in point.asked
        point.asked.add(rank)
        if alone:
            return None
        waiting = [rank, *(r for r in self._cohort if r not in point.asked and self._fits(r, full))]
        point.known.update(self._computed(waiting, x, full))
        point.asked.update(waiting)
        return point.known.pop(rank)

    def _fits(self, rank: int, full: bool) -> bool:
        oracle = self.oracles[rank]
        return oracle.whole if full else oracle.at_first_sample

    def _computed(self, ranks: Sequence[int], x: Tensor, full: bool) -> dict[int, tuple[Tensor, float]]:
        self.flat.load(x)
        batches = {rank: self.oracles[rank].examples if full else self.oracles[rank].batch for rank in ranks}
        by_length: dict[int, list[int]] = {}
        for rank, batch in batches.items():
            by_length.setdefault(len(batch), []).append(rank)
        found = {}
        for alike in by_length.values():
            rows, losses, _ = self.compute([batches[rank] for rank in alike], {})
            for rank, row, loss in zip(alike, rows, losses.tolist(), strict=True):
                found[rank] = (torch.cat(split_up(row, self.flat.parameters, self.flat.pieces)), loss)
        return found
