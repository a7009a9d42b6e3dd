"""The downlink: how what a server has computed comes down to the workers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.methods.base import State
from telegrad.random import Key
from telegrad.wire.code import Code

__all__ = ["Downlink"]


@dataclass(frozen=True)
class Downlink:
    """A compressor for the server's estimates, and whether both ends remember what has come down.

    Without memory the compressor must be unbiased, and a worker takes C(g). With `memory` (EF21-BC, C5) it must be
    contractive: all ends know b, at first zero; the server sends c = C(g − b), and all take b ← b + c for g. `exact`: C
    sends these estimates without error, so that topologies on which nothing comes down compute the same.
    """

    compressor: Compressor
    memory: bool = False
    exact: bool = False

    def __str__(self) -> str:
        return f"{self.compressor} with memory" if self.memory else str(self.compressor)

    def init(self, d: int, dtype: torch.dtype) -> State:
        """What all ends know before the first message."""
        return {"known": torch.zeros(d, dtype=dtype)} if self.memory else {}

    def send(self, estimate: Tensor, state: State, key: Key) -> Code:
        """What the server sends for its `estimate`. Raises `NonFiniteError` where that is not finite."""
        return self.compressor.encode(estimate - state["known"] if self.memory else estimate, key)

    def receive(self, code: Code, state: State) -> tuple[Tensor, State]:
        """What the ends take for the estimate, and what they know from then on."""
        if not self.memory:
            return code.decode(), state
        known = state["known"].clone()
        code.add_to(known)
        return known, {"known": known}
