"""Rounds of topologies from outside telegrad, watched: what a rank may not send, expect or return is named at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, get_args

from torch import Tensor

from telegrad.compressors.returned import an
from telegrad.errors import InputError
from telegrad.wire.parcel import Parcel

if TYPE_CHECKING:
    from telegrad.runtime.member import Member
    from telegrad.runtime.pieces import Piece

__all__ = ["watched"]


def watched(program: Callable[..., Any], phase: type, account: Any) -> Callable[..., Any]:
    """`round` that raises `InputError` where it yields what is no `phase` that fits its ranks, or returns what are no
    estimates of its pieces.
    """

    @wraps(program)
    def round(self: Any, member: Member, pieces: Sequence[Piece], gradients: Sequence[Tensor]) -> Any:
        def refuse(fault: str) -> None:
            if fault:
                raise InputError(f"{type(self).__name__}.round {fault}")

        running, inbox = program(self, member, pieces, gradients), None
        if not inspect.isgenerator(running):
            refuse(f"returned {an(running)} at once; it is a generator, which yields each Phase to be sent")
        while True:
            try:
                now = running.send(inbox)
            except StopIteration as end:
                refuse(_of_estimates(end.value, pieces))
                return end.value
            refuse(_of_phase(now, phase, get_args(account), member.rank, member.workers))
            inbox = yield now
            more = [sender for sender, parcel in inbox.items() if parcel.codes and sender not in now.expected]
            refuse(f"got messages of ranks {more}; name in expected, by sender, shapes_of(pieces)" if more else "")

    return round


def _of_phase(now: Any, phase: type, accounts: Sequence[str], rank: int, workers: int) -> str:
    if not isinstance(now, phase):
        return f"yields {an(now)}; a Phase({{rank: parcel}}, account, expected) is wanted"
    found: Any = now
    if found.account not in accounts:
        return f"yields the account {found.account!r}; {', '.join(accounts)} are allowed"
    if not isinstance(found.outgoing, Mapping) or not isinstance(found.expected, Mapping):
        return "yields a Phase whose outgoing or expected is no mapping by rank; {} is none"
    for to, parcel in found.outgoing.items():
        if to == rank or to not in range(workers):
            return f"of rank {rank} sends to rank {to!r}; the others of 0 … {workers - 1} are allowed"
        if not isinstance(parcel, Parcel):
            return f"sends {an(parcel)}; a parcel is wanted, such as member.encode(pieces, gradients) makes"
    return ""


def _of_estimates(estimates: Any, pieces: Sequence[Piece]) -> str:
    sizes = [(piece.numel,) for piece in pieces]
    fits = isinstance(estimates, list | tuple) and all(isinstance(one, Tensor) for one in estimates)
    if not fits or [tuple(one.shape) for one in estimates] != sizes:
        return f"returned {an(estimates)}; a list of estimates of the shapes {sizes} is wanted, one a piece"
    return ""
