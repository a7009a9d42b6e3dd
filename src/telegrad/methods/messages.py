"""What workers and the server of an oracle method send: messages over the whole model, and plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.kernels.threads import kept
from telegrad.wire.code import Code, add_codes

__all__ = ["Broadcast", "Message", "Upload"]


@dataclass(frozen=True, eq=False)
class Message:
    """What a compressor makes of one vector over the whole model: a code for each piece, one piece after another."""

    codes: tuple[Code, ...]

    @kept
    def vector(self) -> Tensor:
        """The estimate, flat, shape (d,), in the model's dtype."""
        return torch.cat([code.decode() for code in self.codes])

    def add_to(self, out: Tensor, weight: float = 1.0) -> None:
        """out += weight · the estimate, in place; costs the number of entries sent, not d."""
        for code, part in zip(self.codes, out.split([code.numel for code in self.codes]), strict=True):
            add_codes((code,), part, weight)


@dataclass(frozen=True, eq=False)
class Upload:
    """What a worker sends in a step: any number of messages, and plain numbers (64 bits each, and a header).

    Weights that follow from the plan need not be sent; others go as numbers.
    """

    messages: tuple[Message, ...] = ()
    numbers: tuple[float, ...] = ()

    @property
    def vector(self) -> Tensor:
        """The estimate that the first message stands for."""
        return self.messages[0].vector


@dataclass(frozen=True, eq=False)
class Broadcast(Upload):
    """What the server sends, to all workers or to the plan's `receivers`."""
