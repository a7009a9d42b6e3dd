"""The contract of a method: what a worker sends and what the server makes of it, as pure functions over explicit
state.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from telegrad.errors import NonFiniteError
from telegrad.kernels.magnitudes import largest_magnitude
from telegrad.kernels.scatter import zeros
from telegrad.random import Key
from telegrad.spec import Registered
from telegrad.wire.code import Code, add_codes

__all__ = ["Method", "State", "Step", "mean_of", "require_finite"]

State = dict[str, Tensor]
"""What a worker or the server remembers between steps: named tensors. Never changed in place."""


@dataclass(frozen=True)
class Step:
    """What both sides know of the current step: its number from 0, the learning rate, and the key of this step and
    piece. `workspace`: a flat vector, of whatever content, that the server may overwrite with its estimate.
    """

    index: int
    lr: float
    key: Key
    workspace: Tensor | None = None

    def uplink(self, rank: int) -> Key:
        """The key of what worker `rank` sends in this step."""
        return self.key.fold(role="uplink", rank=rank)


class Method(Registered, ABC):
    """A distributed optimisation method over one piece of the model: a flat vector of d entries (all of it, a bucket,
    or a tensor).

    In every step each worker turns its gradient into a code, the server turns the codes into an estimate of the mean
    gradient, and a torch optimizer takes the estimate as the gradient. One implementation serves simulator and wire.
    Where the compressor wants the last estimate, the runtime hands it, in `after`, to the method and to the codes.
    """

    kind: ClassVar[str] = "method"

    @abstractmethod
    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        """A worker's state before step 0."""

    @abstractmethod
    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        """The code that worker `rank` sends for its `gradient` (flat, shape (d,)), and its next state.

        Raises `NonFiniteError` where the gradient holds NaN or infinity; the runtime then drops the step on all
        workers.
        """

    @abstractmethod
    def server_init(self, d: int, dtype: torch.dtype) -> State:
        """The server's state before step 0."""

    @abstractmethod
    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        """The estimate of the mean gradient (flat, shape (d,)) from the codes in the order of ranks, and the next
        state. Raises `NonFiniteError` where the estimate overflows the codes' dtype.
        """


def mean_of(codes: Sequence[Code], weight: float = 1.0, workspace: Tensor | None = None) -> Tensor:
    """weight · the mean of the codes' estimates, flat, accumulated in the order of ranks in the codes' dtype (at
    least float32); in `workspace`, where that is of this dtype and length. Raises `NonFiniteError` where it overflows.
    """
    first = codes[0]
    wide = torch.float64 if first.dtype == torch.float64 else torch.float32
    if workspace is not None and workspace.dtype == wide and workspace.shape == (first.numel,):
        out = workspace.zero_()
    else:
        out = zeros((first.numel,), wide)
    add_codes(codes, out, weight / len(codes))
    bound = sum(term.values.largest() for code in codes for term in code.terms) * abs(weight) / len(codes)
    if not bound <= torch.finfo(first.dtype).max:
        require_finite(out.to(first.dtype))
    return out


def require_finite(estimate: Tensor) -> None:
    """Raise `NonFiniteError` where an entry of the estimate is not finite."""
    if not math.isfinite(largest_magnitude(estimate)):
        raise NonFiniteError(f"the estimate overflows {estimate.dtype}")
