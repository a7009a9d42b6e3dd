"""Masks of CompressedScaffnew and TAMUNA: every entry is sent by exactly s of n workers, and no index is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from telegrad.compressors.identity import Identity
from telegrad.methods.base import State
from telegrad.methods.oracle_method import Broadcast, Message, OracleMethod, OracleStep, Upload
from telegrad.wire.code import Code, Term, add_codes
from telegrad.wire.positions import Share
from telegrad.wire.values import Floats

__all__ = ["ByOwners", "mask_of", "masked_message", "mean_of_owners", "variance_factor"]


class ByOwners(OracleMethod):
    """A method whose workers correct their steps by controls, and of whose models every entry comes from its owners."""

    probability: float
    owners: int

    def worker_init(self, x: Tensor) -> State:
        return {"control": torch.zeros_like(x), "moved": x}

    def server_step(self, uploads: Mapping[int, Upload], state: State, step: OracleStep) -> tuple[Broadcast, State]:
        return Broadcast((step.encode(Identity(), mean_of_owners(uploads.values(), self.owners, step)),)), state

    def corrected(self, mean: Tensor, state: State, mask: Tensor, chi: float, step: OracleStep) -> State:
        """The state once the mean is known: the control moves where the worker owns entries, by (p χ / γ) of what it
        was away from the mean.
        """
        change = (self.probability * chi / step.positive_lr) * (mean - state["moved"])
        control = state["control"] + torch.where(mask, change, torch.zeros_like(change))
        return {"control": control, "moved": state["moved"]}


def variance_factor(workers: int, owners: int) -> float:
    """ν = n (s − 1) / (s (n − 1)), the largest χ of (C15.2); 1 for a single worker."""
    return workers * (owners - 1) / (owners * (workers - 1)) if workers > 1 else 1.0


def _shares(numel: int, piece: str, column: int, columns: int, owners: int, step: OracleStep) -> list[Share]:
    """The shares of a piece that a column owns: `owners` neighbours, in a cycle, of a random division of the entries
    into one share a column.
    """
    seed = step.common.fold(draw="mask", piece=piece).to_int()
    return [Share(numel, columns, (column + shift) % columns, seed) for shift in range(owners)]


def _column(place: int, columns: int, step: OracleStep) -> int:
    """Which column of the mask the worker at `place` of the cohort has: one shared permutation a round."""
    return int(step.common.fold(draw="columns").permutation(columns)[place])


def masked_message(vector: Tensor, place: int, columns: int, owners: int, step: OracleStep) -> Message:
    """The entries of `vector` that the worker at `place` among `columns` owns, as they are."""
    if owners == columns:  # all of them, as plain as a mean of whole models
        return step.encode(Identity(), vector)
    column, codes = _column(place, columns, step), []
    for piece, part in zip(step.pieces, vector.split([piece.numel for piece in step.pieces]), strict=True):
        shares = _shares(piece.numel, piece.name, column, columns, owners, step)
        terms = tuple(Term(share, Floats(part[share.indices()])) for share in shares if share.n)
        codes.append(Code((piece.numel,), part.dtype, terms))
    return Message(tuple(codes))


def mask_of(place: int, columns: int, owners: int, step: OracleStep) -> Tensor:
    """Which entries that worker owns: booleans, flat, (d,)."""
    column, parts = _column(place, columns, step), []
    for piece in step.pieces:
        part = torch.zeros(piece.numel, dtype=torch.bool)
        for share in _shares(piece.numel, piece.name, column, columns, owners, step):
            part[share.indices()] = True
        parts.append(part)
    return torch.cat(parts)


def mean_of_owners(uploads: Iterable[Upload], owners: int, step: OracleStep) -> Tensor:
    """(1/s) Σ of what arrives, added up in its order: the mean over the owners of each entry."""
    by_piece = list(zip(*(upload.messages[0].codes for upload in uploads), strict=True))
    out = step.zeros()
    for codes, part in zip(by_piece, out.split([piece.numel for piece in step.pieces]), strict=True):
        add_codes(codes, part, 1 / owners)
    return out
