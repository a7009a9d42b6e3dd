"""What all methods have in common: what both sides know of a step, and the plan that they make of it alike."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from telegrad.context import Contextual
from telegrad.errors import InputError, NonFiniteError
from telegrad.kernels.memory import zeros
from telegrad.kernels.statistics.magnitudes import largest_magnitude
from telegrad.random import Key
from telegrad.wire.code import Code, add_codes

__all__ = [
    "EVERYONE",
    "Contents",
    "Method",
    "Round",
    "State",
    "Step",
    "mean_of",
    "require_finite",
    "require_finite_codes",
]

_CPU = torch.device("cpu")

State = dict[str, Tensor]
"""What a worker or the server remembers between steps: named tensors. Never changed in place."""


@dataclass(frozen=True)
class Contents:
    """How much an oracle method's upload or broadcast holds: messages over the whole model, and plain numbers."""

    messages: int = 1
    numbers: int = 0


@dataclass(frozen=True)
class Round:
    """What a method's `plan` says of a step, alike on all ranks.

    `cohort`: the ranks that take part, in increasing order; None for all. `sends`: whether anything is sent.
    `dense`: whether what is sent is uncompressed, as in a first round or a round that synchronises.
    `local_steps`: how many steps a worker makes by itself. Of an oracle method also `upload`, what each worker sends,
    or by rank; `broadcast`, what the server sends; `receivers`, the ranks that it goes to, None for all.
    """

    cohort: tuple[int, ...] | None = None
    sends: bool = True
    dense: bool = False
    local_steps: int = 1
    upload: Contents | tuple[Contents, ...] = Contents()
    broadcast: Contents = Contents()
    receivers: tuple[int, ...] | None = None

    def has(self, rank: int) -> bool:
        """Whether worker `rank` takes part."""
        return self.cohort is None or rank in self.cohort

    def upload_of(self, rank: int) -> Contents:
        """What worker `rank` sends, where it takes part."""
        return self.upload[rank] if isinstance(self.upload, tuple) else self.upload


EVERYONE = Round()
"""All take part, and send what is compressed."""


@dataclass(frozen=True)
class Step:
    """What both sides know of the current step: its number from 0, the learning rate, and the key of this step and
    piece.

    `workspace`: a flat vector, of whatever content, that the server may overwrite with its estimate. `run`: the
    key of the whole run, where `key` is another. `workers`: their number M. `round`: the plan. `device`: where the
    estimate is to lie.
    """

    index: int
    lr: float
    key: Key
    workspace: Tensor | None = None
    run: Key | None = None
    workers: int = 1
    round: Round = field(default_factory=Round)
    device: torch.device = _CPU

    @cached_property
    def common(self) -> Key:
        """The key of the step, whatever the piece, from which all ranks draw alike."""
        return (self.run or self.key).fold(step=self.index, role="common")

    def uplink(self, rank: int) -> Key:
        """The key of what worker `rank` sends in this step."""
        return self.key.fold(role="uplink", rank=rank)

    def coin(self, probability: float, name: str = "coin") -> bool:
        """A coin that shows true with this probability, and the same side to all ranks and pieces of the step."""
        if not 0 <= probability <= 1:
            raise InputError(f"step.coin({probability}): a probability from 0 to 1 is allowed")
        return self.common.fold(draw=name).number() < probability

    def geometric(self, probability: float, name: str = "geometric") -> int:
        """A number from 1 of the geometric law of mean 1/probability, the same for all ranks."""
        if not probability > 0:
            raise InputError(f"step.geometric({probability}): a probability above 0 is allowed")
        if probability >= 1.0:
            return 1
        return 1 + math.floor(math.log1p(-self.common.fold(draw=name).number()) / math.log1p(-probability))

    def drawn_cohort(self, size: int, name: str = "cohort") -> tuple[int, ...]:
        """`size` of the workers (all, where there are no more), uniformly drawn, the same for all ranks."""
        if not isinstance(size, int) or size < 1:
            raise InputError(f"step.drawn_cohort({size!r}): a number of workers from 1 is allowed, such as 2")
        return tuple(self.common.fold(draw=name).subset(self.workers, min(size, self.workers)).tolist())


@dataclass(frozen=True)
class Method(Contextual, ABC):
    """A distributed optimisation method. One of four kinds, in a file each:

    - `GradientMethod`: turns every worker's finished gradient into a message, and the messages into an estimate that
      a torch optimizer takes as the gradient. The only kind that fits the hooks of DDP and FSDP2.
    - `OracleMethod`: asks for gradients where it wants them, and may move iterates of its own.
    - `OuterMethod`: workers' own optimizers move models of their own, and what that comes to is sent now and then.
    - `AsynchronousMethod`: workers that wait for nobody.
    """

    kind: ClassVar[str] = "method"
    needs: ClassVar[str] = ""
    """What it needs beyond gradients of a backward pass, as the second half of a sentence that begins with its name."""
    instead: ClassVar[str] = "diana(randk(k=0.01))"
    """The spec of a gradient method to use where only such ones fit."""

    allow_unsupported: bool = field(default=False, kw_only=True)
    """Take a compressor, too, that no theory admits to this method: for explorers, at their own risk."""


def mean_of(
    codes: Sequence[Code], weight: float = 1.0, workspace: Tensor | None = None, device: torch.device = _CPU
) -> Tensor:
    """weight · the mean of the codes' estimates, flat, accumulated in the order of ranks in the codes' dtype (at
    least float32); in `workspace`, where that is of this dtype and length, else on `device`. Raises `NonFiniteError`
    where it overflows.
    """
    first, bound = codes[0], _bound(codes)
    wide = torch.float64 if first.dtype == torch.float64 else torch.float32
    if workspace is not None and workspace.dtype == wide and workspace.shape == (first.numel,):
        out = workspace.zero_()
    else:
        out = zeros((first.numel,), wide, device)
    add_codes(codes, out, weight / len(codes))
    if not bound * abs(weight) / len(codes) <= torch.finfo(first.dtype).max:
        require_finite(out.to(first.dtype))
    return out


def require_finite_codes(codes: Iterable[Code]) -> None:
    """Raise `NonFiniteError` where an entry of what a code stands for is not finite."""
    for code in codes:
        if not _bound((code,)) <= torch.finfo(code.dtype).max:
            require_finite(code.decode())


def _bound(codes: Iterable[Code]) -> float:
    """No entry of the codes' sum is larger."""
    total = 0.0
    for code in codes:
        for term in code.terms:
            total += term.values.largest()
    return total


def require_finite(estimate: Tensor) -> None:
    """Raise `NonFiniteError` where an entry of the estimate is not finite."""
    if not math.isfinite(largest_magnitude(estimate)):
        raise NonFiniteError(f"the estimate overflows {estimate.dtype}")
