"""The contract of an oracle method: workers ask for gradients where they want them, and iterates may be their own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.context import Context
from telegrad.errors import InputError, SpecError
from telegrad.methods.base import Method, Round, State, Step, mean_of
from telegrad.methods.clock import Clock
from telegrad.methods.messages import Broadcast, Message, Upload
from telegrad.methods.returned import ORACLE, looked_at

__all__ = ["Broadcast", "Descent", "Message", "Oracle", "OracleMethod", "OracleStep", "Upload", "mean_vector"]


class Oracle(ABC):
    """Worker `rank`'s gradients, wherever it asks for them. Points and gradients are flat, of the whole model, (d,).

    In every step a worker starts with a sample (a batch) that it has not seen before; gradients at several points are
    on the same sample until it moves on. What is asked for is counted (`Ledger.gradients`) and takes time on a clock.
    A gradient that is not finite raises `NonFiniteError`: the step is then left out on all ranks.
    """

    rank: int

    @property
    @abstractmethod
    def count(self) -> int:
        """How many examples the worker has."""

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """∇f_i(x, ξ) on the present sample ξ."""

    @abstractmethod
    def next_sample(self) -> None:
        """Move on to the next sample, for a further step of its own or a further gradient of a mean."""

    @abstractmethod
    def full_gradient(self, x: Tensor) -> Tensor:
        """∇f_i(x) over all of the worker's examples, not augmented."""


class Piece(Protocol):
    """What one compressor call sees of a model: `numel` entries under a name; `shape` where it is one parameter."""

    @property
    def name(self) -> str: ...
    @property
    def numel(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


Descent = Callable[[Tensor, Tensor], Tensor]
"""(x, g) to the next x: a step of the run's torch optimizer from x with g as its gradient."""


@dataclass(frozen=True)
class OracleStep(Step):
    """What a worker (`rank`) or the server (`rank` None) knows of a step.

    `key`: here the key of the whole run. `pieces`: how the model's flat vectors are cut for compressors. `done`: how
    many steps before this one were not left out. `clock`: the simulated one, where there is one. `downlink`: the
    compressor that the run gives the server. `dtype`: the model's.
    """

    pieces: Sequence[Piece] = ()
    rank: int | None = None
    done: int = 0
    clock: Clock | None = None
    downlink: Compressor = field(default_factory=Identity)
    dtype: torch.dtype = torch.float32

    @property
    def positive_lr(self) -> float:
        """The learning rate, for methods that divide by it. Raises `InputError` where it is 0."""
        if not self.lr > 0:
            raise InputError(f"lr={self.lr}: this method divides by the learning rate; a number above 0 is allowed")
        return self.lr

    def encode(self, compressor: Compressor, vector: Tensor, message: str = "") -> Message:
        """What `compressor` sends for `vector`, piece by piece. A second message of the same sender and step needs a
        name of its own, `message`, so that its draws are others.
        """
        who: dict[str, int | str] = {"role": "downlink"} if self.rank is None else {"role": "uplink", "rank": self.rank}
        if message:
            who["message"] = message
        sizes = [piece.numel for piece in self.pieces]
        if vector.shape != (sum(sizes),):
            raise InputError(
                f"step.encode was given a vector of shape {tuple(vector.shape)}; one over the whole model is wanted, "
                f"of shape ({sum(sizes)},)"
            )
        parts = vector.to(self.dtype).split(sizes)
        keys = [self.key.fold(step=self.index, piece=piece.name).fold(**who) for piece in self.pieces]
        bound = [compressor.within(self._context(piece)) for piece in self.pieces]
        return Message(tuple(c.encode(v, key) for c, v, key in zip(bound, parts, keys, strict=True)))

    def upload(self, compressor: Compressor, vector: Tensor) -> Upload:
        """An upload of one message."""
        return Upload((self.encode(compressor, vector),))

    def broadcast(self, vector: Tensor) -> Broadcast:
        """A broadcast of one message, through the downlink that the run was given."""
        return Broadcast((self.encode(self.downlink, vector),))

    def zeros(self) -> Tensor:
        """A zero vector over the model, to add messages up in: float64 for a model of float64, else float32."""
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        return torch.zeros(sum(piece.numel for piece in self.pieces), dtype=wide)

    def omega(self, compressor: Compressor) -> float:
        """omega of the compressor over the whole model: the largest one of a piece."""
        bound = ((compressor.within(self._context(piece)), piece.numel) for piece in self.pieces)
        return max((c.omega(d) for c, d in bound), default=math.nan)

    def _context(self, piece: Piece) -> Context:
        return Context(self.rank, self.workers, self.index, piece.name, piece.shape or (piece.numel,))


class OracleMethod(Method):
    """A method whose workers ask an oracle for gradients and send messages over the whole model.

    A step: all ranks evaluate `plan`; each worker of the cohort makes its `worker_step`; where the plan says that
    something is sent, the server makes its `server_step` and sends a broadcast; every worker makes its `update`. All
    are pure functions: states are values. Vectors are flat, over the whole model, shape (d,), never changed in place.

    `iterates`: "shared", all workers have the same x, moved by `update` alike; or "own", each has one of its own, and
    their mean is evaluated. A server with iterates of its own keeps them in its state and says in `point` which one is
    evaluated. Runs over the topologies `server` and `allgather`.
    """

    iterates: ClassVar[Literal["shared", "own"]] = "shared"
    needs_clock: ClassVar[bool] = False
    takes_downlink: ClassVar[bool] = True
    """Whether its broadcasts go through the run's downlink (`step.broadcast`)."""
    moves_by_itself: ClassVar[bool] = False
    """Whether `update` never asks the run's torch optimizer: a run that sets one up is then told so."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if cls.iterates not in ("shared", "own"):
            raise SpecError(f"{cls.__name__}.iterates = {cls.iterates!r}: shared or own is allowed")
        looked_at(cls, ORACLE)

    def plan(self, step: OracleStep) -> Round:
        """How this step goes: a pure function of `step`, whose coins and cohorts (`step.coin`, `step.drawn_cohort`)
        are the same on all ranks. By default all workers take part and send one message, and get one back: whoever
        sends something else says so (`Round.upload`, `Round.broadcast`), or what arrives is refused.
        """
        return Round()

    def worker_init(self, x: Tensor) -> State:
        """A worker's state before step 0, at the first parameters x."""
        return {}

    def server_init(self, x: Tensor) -> State:
        """The server's state before step 0."""
        return {}

    @abstractmethod
    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        """What worker `step.rank`, at x, sends (None where the plan says that nothing is sent), and its next state."""

    @abstractmethod
    def server_step(self, uploads: Mapping[int, Upload], state: State, step: OracleStep) -> tuple[Broadcast, State]:
        """What the server sends for the uploads, by rank, of the cohort; and its next state."""

    def update(
        self, x: Tensor, broadcast: Broadcast | None, state: State, step: OracleStep, optimizer: Descent
    ) -> tuple[Tensor, State]:
        """A worker's next x and state; `broadcast` is None where nothing came. By default the broadcast's vector is the
        gradient of the run's torch optimizer.
        """
        return (x if broadcast is None else optimizer(x, broadcast.vector)), state

    def point(self, x: Tensor, server: State) -> Tensor:
        """The point that is evaluated, from x (the workers' mean, where they have their own) and the server's state."""
        return x


def mean_vector(uploads: Iterable[Upload] | Mapping[int, Upload], number: int = 0) -> Tensor:
    """The mean of the uploads' messages number `number`, flat, (d,), accumulated in their order in at least float32."""
    given = uploads.values() if isinstance(uploads, Mapping) else uploads
    by_piece = zip(*(upload.messages[number].codes for upload in given), strict=True)
    return torch.cat([mean_of(codes) for codes in by_piece])
