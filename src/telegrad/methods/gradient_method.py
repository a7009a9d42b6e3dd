"""The contract of a gradient method: what a worker sends of its gradient, and the server's estimate of the mean."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from telegrad.methods.base import EVERYONE, Method, Round, State, Step
from telegrad.methods.downlink import Downlink
from telegrad.methods.returned import GRADIENT, looked_at
from telegrad.wire.code import Code

__all__ = ["GradientMethod"]


class GradientMethod(Method):
    """A method over one piece of the model: a flat vector of d entries (all of it, a bucket, a tensor, or a shard).

    In every step each worker turns its gradient into a code, the server turns the codes into an estimate of the mean
    gradient, and a torch optimizer takes the estimate as the gradient. One implementation serves the simulator,
    torch.distributed and the hook of DDP. States are vectors over the piece's entries, or 0-d.

    A `plan` may name a cohort (the others send nothing and keep their state; `server_step` gets the cohort's codes) and
    dense rounds, but something is sent in every step.
    """

    remembers: ClassVar[bool] = True
    """Whether it may have states; one that says False has none."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        looked_at(cls, GRADIENT)

    def plan(self, step: Step) -> Round:
        """How this step goes: a pure function of `step`, whose coins and cohorts (`step.coin`, `step.drawn_cohort`)
        are the same on all ranks and for all pieces. By default all workers take part and send.
        """
        return EVERYONE

    def downlink(self) -> Downlink | None:
        """How estimates come down from a server; None leaves it to the topology and the run's own `downlink`."""
        return None

    def on_gpu(self, gradient: Tensor) -> bool:
        """Whether it takes this flat gradient, and may make its estimate, where it lies on a GPU; else the gradient
        comes to the CPU first. Only for a method without memory.
        """
        return False

    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        """A worker's state before step 0; empty where it has none."""
        return {}

    @abstractmethod
    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        """The code that worker `rank` sends for its `gradient` (flat, shape (d,)), and its next state.

        Raises `NonFiniteError` where the gradient holds NaN or infinity; the runtime then drops the step on all
        workers.
        """

    def server_init(self, d: int, dtype: torch.dtype) -> State:
        """The server's state before step 0; empty where it has none."""
        return {}

    @abstractmethod
    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        """The estimate of the mean gradient (flat, shape (d,)) from the codes in the order of ranks, and the next
        state. Raises `NonFiniteError` where the estimate overflows the codes' dtype.
        """
