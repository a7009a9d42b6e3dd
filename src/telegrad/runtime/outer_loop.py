"""The rounds of an outer method: differences are exchanged, an outer optimizer moves the global parameters."""

from __future__ import annotations

import copy
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from telegrad.errors import NonFiniteError, TelegradWarning
from telegrad.kernels.device import away_from_default_device
from telegrad.methods.outer_method import OuterMethod
from telegrad.runtime.exchange import Exchange
from telegrad.runtime.fragments import fragments_of
from telegrad.runtime.pieces import BUCKET_BYTES, Granularity, Piece, by_parameter

__all__ = ["OuterLoop", "forget_what_is_not_finite"]


@dataclass(frozen=True)
class Travelling:
    """A fragment under way: after which inner step it arrives, and what waits for what it brings: by parameter, the
    mean of the workers' differences, flat; or why the round is skipped, on all ranks alike.
    """

    due: int
    result: Callable[[], dict[str, Tensor] | str]


class OuterLoop:
    """What an outer method does after every inner step, for the ranks of this process.

    `workers`: for each of these ranks the parameters of its own, by name; overwritten where a round ends. `parameters`:
    the global ones, and `optimizer`, the outer torch optimizer: alike on all ranks, in float32 where the model's have
    16 bits. `beside`: a round whose fragment travels for a while runs on a thread of its own, for which the exchange
    needs a process group that nothing else uses; else at once, to the same numbers. A round needs room for a fragment.
    """

    def __init__(
        self,
        method: OuterMethod,
        exchange: Exchange,
        workers: Sequence[Mapping[str, Tensor]],
        granularity: Granularity,
        beside: bool = False,
    ) -> None:
        self.method, self.exchange, self.workers, self._beside = method, exchange, workers, beside
        self.parameters = {name: _copied(parameter) for name, parameter in workers[0].items()}
        self.fragments = fragments_of(self.parameters, method.fragments, granularity)
        self.optimizer = method.optimizer.make(self.parameters.values())
        self.step, self.rounds = 0, 0
        self.travelling: Travelling | None = None

    def after_step(self) -> list[int]:
        """Count an inner step, which all ranks have made, and make the rounds that are due after it.

        Returns the places in `workers` whose parameters were not finite: they hold the global ones again.
        """
        self.step += 1
        leaving, strays = self.method.leaves_after(self.step), list[int]()
        if self.travelling is not None and self.travelling.due <= self.step:
            strays = self.arrive(self.method.alpha)
        if leaving is not None:
            self.depart(leaving)
            if not self.method.delay:
                strays = self.arrive(self.method.alpha)
        self.exchange.ledger.silent_steps += leaving is None
        return strays

    def synchronise(self) -> list[int]:
        """Make a round of every fragment now; all ranks then hold the global parameters, but for rounds skipped."""
        strays = self.arrive(self.method.alpha)
        for number in range(len(self.fragments)):
            self.depart(number)
            strays += self.arrive(0.0)
        return strays

    @torch.no_grad()
    def depart(self, fragment: int) -> None:
        """Send a fragment on its way."""
        pieces, index = self.fragments[fragment], self.rounds
        differences = [[self._difference(piece, own) for piece in pieces] for own in self.workers]
        self.rounds += 1

        def exchanged() -> dict[str, Tensor] | str:
            return self._exchanged(index, pieces, differences)

        if self.method.delay and self._beside:
            self.travelling = Travelling(self.step + self.method.delay, _beside(exchanged))
        else:
            found = exchanged()
            self.travelling = Travelling(self.step + self.method.delay, lambda: found)

    @torch.no_grad()
    def arrive(self, alpha: float) -> list[int]:
        """End the round that is under way, if there is one: move the global parameters, and the workers' to θ +
        alpha (θ_i − θ). Returns what `after_step` does.
        """
        if self.travelling is None:
            return []
        found, self.travelling = self.travelling.result(), None
        if isinstance(found, str):
            return self._skip(found)
        for name, estimate in found.items():
            theta = self.parameters[name]
            theta.grad = estimate.view_as(theta).to(theta.device)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.take(found, alpha)
        return []

    @torch.no_grad()
    def take(self, names: Iterable[str], alpha: float = 0.0) -> None:
        """θ_i ← θ + alpha (θ_i − θ), for these parameters of all workers."""
        for name in names:
            theta = self.parameters[name]
            for own in self.workers:
                own[name].copy_(torch.lerp(theta, own[name].to(theta.dtype), alpha) if alpha else theta)

    def save(self) -> dict[str, Any]:
        """All that is alike on all ranks and that a later round depends on, as plain values and tensors of its own;
        waits for a fragment that travels.
        """
        travelling = None
        if self.travelling is not None:
            travelling = {"due": self.travelling.due, "brings": copy.deepcopy(self.travelling.result())}
        return {
            "step": self.step,
            "rounds": self.rounds,
            "global": {name: parameter.detach().clone() for name, parameter in self.parameters.items()},
            "outer_optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "travelling": travelling,
        }

    @torch.no_grad()
    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `save` gave; the workers' parameters and the exchange's memory are the caller's to load."""
        self.step, self.rounds, self.travelling = int(saved["step"]), int(saved["rounds"]), None
        for name, value in saved["global"].items():
            self.parameters[name].copy_(value)
        self.optimizer.load_state_dict(saved["outer_optimizer"])
        if saved["travelling"] is not None:
            brings = copy.deepcopy(saved["travelling"]["brings"])
            self.travelling = Travelling(int(saved["travelling"]["due"]), lambda: brings)

    def _difference(self, piece: Piece, own: Mapping[str, Tensor]) -> Tensor:
        """θ − θ_i of a piece, flat, a copy."""
        parts = [(self.parameters[part.name] - own[part.name]).reshape(-1) for part in piece.parts]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).cpu()

    @away_from_default_device
    def _exchanged(
        self, index: int, pieces: Sequence[Piece], differences: Sequence[Sequence[Tensor]]
    ) -> dict[str, Tensor] | str:
        exchange, failure = self.exchange, ""
        estimates: list[Tensor] = []
        under_way: deque[Callable[[], list[Tensor]]] = deque()
        exchange.begin(index, 1.0)
        for group in _groups(pieces, [one.dtype for one in differences[0]]):
            if not failure:
                own = [[vectors[i] for i in group] for vectors in differences]
                chosen = [pieces[i] for i in group]
                under_way.append(exchange.start(chosen, own, overwrite=exchange.transport.foreign).finish)
            # While the newest messages travel, those before are decoded; never by the clock, so that all do the same.
            while len(under_way) > (0 if failure or group[-1] == len(pieces) - 1 else 1):
                try:
                    estimates += under_way.popleft()()
                except NonFiniteError as error:
                    failure = failure or str(error)
        if failure:
            return failure
        exchange.commit()
        return by_parameter(estimates, pieces)

    def _skip(self, failure: str) -> list[int]:
        """Leave out a round; whose parameters are not finite begins again at the global ones."""
        ledger, strays = self.exchange.ledger, []
        ledger.skipped_steps += 1
        if ledger.skipped_steps == 1:
            text = f"after step {self.step} a round is skipped on all ranks: {failure}"
            warnings.warn(text, TelegradWarning, stacklevel=2)
        for place, own in enumerate(self.workers):
            bad = [name for name in self.parameters if not bool(own[name].isfinite().all())]
            for name in bad:
                own[name].copy_(self.parameters[name])
            if bad:
                strays.append(place)
        return strays


def forget_what_is_not_finite(optimizer: torch.optim.Optimizer) -> None:
    """Let an inner optimizer begin anew for parameters of which it remembers something that is not finite."""
    for parameter, held in list(optimizer.state.items()):
        if not all(bool(v.isfinite().all()) for v in held.values() if isinstance(v, Tensor)):
            del optimizer.state[parameter]


def _copied(parameter: Tensor) -> nn.Parameter:
    dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    return nn.Parameter(parameter.detach().to(dtype, copy=True), requires_grad=False)


def _groups(pieces: Sequence[Piece], dtypes: Sequence[torch.dtype]) -> list[list[int]]:
    """Which pieces leave together: neighbours of one dtype, up to a bucket's size."""
    groups: list[list[int]] = []
    filled = 0
    for number, (piece, dtype) in enumerate(zip(pieces, dtypes, strict=True)):
        size = piece.numel * dtype.itemsize
        if not groups or filled + size > BUCKET_BYTES or dtype != dtypes[number - 1]:
            groups.append([])
            filled = 0
        groups[-1].append(number)
        filled += size
    return groups


def _beside(compute: Callable[[], dict[str, Tensor] | str]) -> Callable[[], dict[str, Tensor] | str]:
    """Compute on a thread; returns what waits for the result. Only one such thread runs at a time."""
    promise: Future[dict[str, Tensor] | str] = Future()
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def work() -> None:
        try:
            if device is not None:  # a thread's own
                torch.cuda.set_device(device)
            promise.set_result(compute())
        except BaseException as error:
            promise.set_exception(error)

    threading.Thread(target=work, name="telegrad-outer", daemon=True).start()
    return promise.result
