"""One round of communication between M workers and the server, with what both remember."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, NonFiniteError
from telegrad.methods.base import Method, State, Step
from telegrad.random import Key
from telegrad.runtime.ledger import Ledger
from telegrad.wire.code import Code

__all__ = ["Exchange", "Granularity", "Piece", "pieces_of"]

Granularity = Literal["model", "tensor"]


@dataclass(frozen=True)
class Piece:
    """What one compressor call sees: entries start … stop−1 of the flat gradient, and the shape they have in the
    model.
    """

    name: str
    start: int
    stop: int
    shape: tuple[int, ...] = ()


def pieces_of(model: nn.Module, granularity: Granularity) -> list[Piece]:
    """The model as one piece, or a piece for each parameter tensor, in the order of `model.parameters()`."""
    pieces, start = [], 0
    for name, parameter in model.named_parameters():
        pieces.append(Piece(name, start, start + parameter.numel(), tuple(parameter.shape)))
        start += parameter.numel()
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if len(dtypes) != 1:
        raise ConfigError(f"the model has parameters of {len(dtypes)} dtypes; one is allowed here")
    return pieces if granularity == "tensor" else [Piece("model", 0, start)]


class Exchange:
    """A method's worker and server steps over all pieces, in one process, as through a parameter server.

    Holds the workers' and the server's states and the ledger; a round either commits all of them or, where something
    is not finite, none.
    """

    def __init__(
        self, method: Method, downlink: Compressor, pieces: Sequence[Piece], workers: int, dtype: torch.dtype, key: Key
    ) -> None:
        self.downlink, self.pieces, self.key = downlink, pieces, key
        self.methods = [method.for_shape(piece.shape) for piece in pieces]
        sizes = [piece.stop - piece.start for piece in pieces]
        self.worker_states: list[list[State]] = [
            [method.worker_init(size, dtype) for size in sizes] for _ in range(workers)
        ]
        self.server_states: list[State] = [method.server_init(size, dtype) for size in sizes]
        self.ledger = Ledger(workers)

    def round(self, gradients: Tensor, index: int, lr: float) -> Tensor:
        """The estimate of the mean gradient, shape (d,), that every worker receives for `gradients` of shape (M, d).

        Raises `NonFiniteError`, naming worker and piece, and then nothing is changed.
        """
        workers: list[list[State]] = [[] for _ in gradients]
        servers: list[State] = []
        sent: list[list[Code]] = []
        received: list[Code] = []
        for number, piece in enumerate(self.pieces):
            step = Step(index, lr, self.key.fold(step=index, piece=piece.name))
            codes = []
            for rank, gradient in enumerate(gradients):
                try:
                    code, state = self.methods[number].worker_step(
                        gradient[piece.start : piece.stop], self.worker_states[rank][number], rank, step
                    )
                except NonFiniteError as error:
                    raise NonFiniteError(f"worker {rank}, {piece.name}: {error}") from None
                codes.append(code)
                workers[rank].append(state)
            estimate, server = self.methods[number].server_step(codes, self.server_states[number], step)
            sent.append(codes)
            servers.append(server)
            received.append(self.downlink.encode(estimate.to(gradients.dtype), step.key.fold(role="downlink")))
        self.worker_states, self.server_states = workers, servers
        for codes, down in zip(sent, received, strict=True):
            for rank, code in enumerate(codes):
                self.ledger.uplink(rank, code)
            self.ledger.downlink(down)
        return torch.cat([code.decode() for code in received])
