"""What one rank remembers of a method, piece by piece, kept by parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from telegrad.methods.base import State
from telegrad.runtime.pieces import Piece

__all__ = ["Held", "Saved", "States"]

Saved = dict[str, State]
"""States by part of a parameter, `name` or `name[start:stop]`: what a checkpoint holds."""

Held = tuple[Piece, State]


class States:
    """The states of all pieces, which survive a new cut of the model into pieces.

    A state's tensors are vectors over the piece's entries, or 0-d. When a piece appears that was not seen before, its
    state is put together from what its parts remember; parts that remember nothing start as `initial` says.
    """

    def __init__(self, initial: Callable[[int, torch.dtype], State]) -> None:
        self.initial = initial
        self._held: dict[str, Held] = {}
        self._parts: Saved = {}

    def of(self, piece: Piece, dtype: torch.dtype) -> State:
        """The state of `piece`, whose gradients are of `dtype`."""
        held = self._held.get(piece.name)
        if held is not None and held[0] == piece:
            return held[1]
        initial = self.initial(piece.numel, dtype)
        if not initial:
            self._held[piece.name] = piece, initial
            return initial
        self._dissolve()
        return self._assembled(piece, initial)

    def update(self, states: Iterable[Held]) -> None:
        """Replace the states of these pieces."""
        for piece, state in states:
            if state:
                self._held[piece.name] = (piece, state)

    def save(self) -> Saved:
        """All states by part of a parameter; tensors of their own."""
        self._dissolve()
        return {part: {name: tensor.clone() for name, tensor in state.items()} for part, state in self._parts.items()}

    def load(self, saved: Saved) -> None:
        """Go on from what `save` gave."""
        self._held.clear()
        self._parts = {part: {name: t.clone() for name, t in state.items()} for part, state in saved.items()}

    def _dissolve(self) -> None:
        for piece, state in self._held.values():
            cut = {name: t.split(piece.sizes) for name, t in state.items() if t.dim()}
            for number, part in enumerate(piece.parts if state else ()):
                own = {name: cut[name][number] if t.dim() else t for name, t in state.items()}
                self._parts[_label(part.name, part.start, part.stop)] = own
        self._held.clear()

    def _assembled(self, piece: Piece, initial: State) -> State:
        known = [self._parts.get(_label(part.name, part.start, part.stop)) for part in piece.parts]
        state: State = {}
        for name, start in initial.items():
            if start.dim():
                blank = start.split(piece.sizes)
                found = [b if k is None else k[name].to(start) for k, b in zip(known, blank, strict=True)]
                state[name] = torch.cat(found)
            else:
                own: list[Tensor] = [k[name] for k in known if k is not None]
                state[name] = own[0] if own else start
        return state


def _label(name: str, start: int, stop: int) -> str:
    return f"{name}[{start}:{stop}]"
