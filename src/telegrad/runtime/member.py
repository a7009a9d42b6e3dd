"""A member: one rank's part in the exchange, with what it remembers as a worker and as a server."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from telegrad.compressors.identity import Identity
from telegrad.context import Context, LastEstimate
from telegrad.errors import NonFiniteError
from telegrad.methods.base import State, Step, require_finite_codes
from telegrad.methods.downlink import Downlink
from telegrad.methods.gradient_method import GradientMethod
from telegrad.random import Key
from telegrad.runtime.pieces import Piece, shard_of
from telegrad.runtime.states import Held, Saved, States
from telegrad.wire.code import decoded_on
from telegrad.wire.parcel import Parcel

__all__ = ["Member"]

_CPU = torch.device("cpu")

T = TypeVar("T")


class Member:
    """Worker `rank` of `workers`, and the server of whatever its topology gives it to serve. The method counts
    `method_workers` workers: where a topology has nodes, these.

    States that a round brings are pending until `commit`. `shared`, a dictionary common to all members that live in one
    process, spares them from computing alike what all ranks compute alike. `workspaces`: vectors by piece that a
    server's step may overwrite. `device`: where gradients lie, and estimates are to lie.
    """

    def __init__(
        self,
        rank: int,
        workers: int,
        method: GradientMethod,
        downlink: Downlink,
        key: Key,
        shared: dict[Hashable, Any],
        method_workers: int,
    ) -> None:
        self.rank, self.workers, self.method, self.downlink, self.key = rank, workers, method, downlink, key
        self.worker_states, self.server_states = States(method.worker_init), States(method.server_init)
        self.last_estimates, self.down_states = States(_no_estimate), States(downlink.init)
        self._shared, self._asks, self.wants_last = shared, bool(method.asks), "last" in method.asks
        self._worker_pending: list[Held] = []
        self._server_pending: list[Held] = []
        self._last_pending: list[Held] = []
        self._down_pending: list[Held] = []
        self._now = Step(0, 0.0, key, workers=method_workers)
        self.round = self._now.round
        """The method's plan of this step."""
        self._steps: dict[str, Step] = {}
        self.workspaces: dict[str, Tensor] = {}
        self.device = _CPU

    def begin(self, index: int, lr: float) -> None:
        """Enter step `index`, and forget what a step before left pending."""
        self._now = Step(index, lr, self.key, workers=self._now.workers)
        self.round = self.method.plan(self._now)
        self._steps.clear()
        self._worker_pending, self._server_pending, self._last_pending, self._down_pending = [], [], [], []
        self.workspaces = {}

    def commit(self) -> None:
        """Make the pending states those that count."""
        for states, pending in (
            (self.worker_states, self._worker_pending),
            (self.server_states, self._server_pending),
            (self.last_estimates, self._last_pending),
            (self.down_states, self._down_pending),
        ):
            if pending:
                states.update(pending)

    def keep(self, estimate: Tensor, piece: Piece, shards: Sequence[Piece]) -> None:
        """Remember the estimate of `piece`, by the shards that the worker cuts it into, for a method that
        `wants_last`.
        """
        for i, shard in enumerate(shards):
            own = self.once(("kept", shard.name), lambda i=i: shard_of(estimate, piece, i, len(shards)))  # type: ignore[misc]
            self._last_pending.append((shard, {"last": own}))

    def remember(self, as_worker: Sequence[Piece], as_server: Sequence[Piece], dtype: torch.dtype) -> None:
        """Have states for these pieces, initial ones where there are none yet: what a checkpoint must list."""
        for pieces, states in ((as_worker, self.worker_states), (as_server, self.server_states)):
            states.update([(piece, states.of(piece, dtype)) for piece in pieces])
        if self.wants_last:
            self.last_estimates.update([(piece, self.last_estimates.of(piece, dtype)) for piece in as_worker])
        self.down_states.update([(piece, self.down_states.of(piece, dtype)) for piece in as_worker])

    def save(self) -> dict[str, Saved]:
        """All states, as tensors of their own."""
        return {name: states.save() for name, states in self._states().items()}

    def load(self, saved: Mapping[str, Saved]) -> None:
        """Go on from what `save` gave; from the start where `saved` is empty."""
        for name, states in self._states().items():
            states.load(saved.get(name, {}))

    def _states(self) -> dict[str, States]:
        states = {"worker": self.worker_states, "server": self.server_states, "last": self.last_estimates}
        return {**states, "down": self.down_states} if self.downlink.memory else states

    def _step(self, piece: Piece) -> Step:
        if piece.name not in self._steps:
            now, workspace = self._now, self.workspaces.get(piece.name)
            key = self.key.fold(step=now.index, piece=piece.name)
            fixed = (self.key, now.workers, self.round, self.device)
            self._steps[piece.name] = Step(now.index, now.lr, key, workspace, *fixed)
        return self._steps[piece.name]

    def _last(self, piece: Piece, dtype: torch.dtype) -> LastEstimate:
        return self.once(("last", piece.name), lambda: LastEstimate(self.last_estimates.of(piece, dtype)["last"]))

    def _context(self, piece: Piece, dtype: torch.dtype, worker: int | None = None) -> Context:
        """That of this piece in this step, for a worker or for a server."""
        last = self._last(piece, dtype) if self.wants_last else None
        shape = piece.shape or (piece.numel,)
        return Context(worker, self._now.workers, self._now.index, piece.name, shape, last)

    def once(self, what: Hashable, compute: Callable[[], T]) -> T:
        """The result of `compute`, which is the same on all ranks."""
        if what not in self._shared:
            self._shared[what] = compute()
        result: T = self._shared[what]
        return result

    def encode(self, pieces: Sequence[Piece], gradients: Sequence[Tensor], worker: int | None = None) -> Parcel:
        """The worker's messages for its gradients, as worker number `worker` (its rank)."""
        worker, codes, method = self.rank if worker is None else worker, [], self.method
        if self.round.cohort is not None and not self.round.has(worker):
            return Parcel()
        for piece, gradient in zip(pieces, gradients, strict=True):
            state = self.worker_states.of(piece, gradient.dtype) if method.remembers else {}
            try:
                if self._asks:
                    method = self.method.within(self._context(piece, gradient.dtype, worker))
                code, state = method.worker_step(gradient, state, worker, self._step(piece))
            except NonFiniteError as error:
                return Parcel(failure=f"worker {worker}, {piece.name}: {error}")
            if state:
                self._worker_pending.append((piece, state))
            codes.append(code)
        return Parcel(tuple(codes))

    def serve(self, pieces: Sequence[Piece], inbox: Mapping[int, Parcel], dtype: torch.dtype) -> list[Tensor] | str:
        """The server's estimates for the workers' messages, in the order of ranks; or why there are none."""
        found, states = self._served(pieces, inbox, dtype)
        self._server_pending += states
        return found

    def _served(
        self, pieces: Sequence[Piece], inbox: Mapping[int, Parcel], dtype: torch.dtype
    ) -> tuple[list[Tensor] | str, list[Held]]:
        """What `serve` returns, and the states that this brings."""
        states: list[Held] = []
        parcels, estimates, method = list(map(inbox.__getitem__, sorted(inbox))), [], self.method
        for parcel in parcels:
            if parcel.failure:
                return parcel.failure, states
        if self.round.cohort is not None:
            parcels = [parcel for worker, parcel in enumerate(parcels) if self.round.has(worker)]
        for number, piece in enumerate(pieces):
            codes = [parcel.codes[number] for parcel in parcels]
            if self._asks:
                context = self._context(piece, dtype)
                method = self.method.within(context)
                if self.wants_last:
                    codes = [code.within(context) for code in codes]
            try:
                state = self.server_states.of(piece, dtype) if method.remembers else {}
                estimate, state = method.server_step(codes, state, self._step(piece))
            except NonFiniteError as error:
                return f"{piece.name}: {error}", states
            if state:
                states.append((piece, state))
            estimates.append(estimate.to(dtype))
        return estimates, states

    def serve_alike(
        self, what: str, pieces: Sequence[Piece], inbox: Mapping[int, Parcel], dtype: torch.dtype
    ) -> list[Tensor]:
        """`serve` where every rank serves the same. Raises `NonFiniteError` in place of a reason."""
        found, states = self.once((what, pieces[0].name), partial(self._served, pieces, inbox, dtype))
        self._server_pending += states
        if isinstance(found, str):
            raise NonFiniteError(found)
        return found

    def serve_down(self, pieces: Sequence[Piece], inbox: Mapping[int, Parcel], dtype: torch.dtype) -> Parcel:
        """The server's messages: its estimates through the downlink's compressor."""
        served = self.serve(pieces, inbox, dtype)
        if isinstance(served, str):
            return Parcel(failure=served)
        codes = []
        for piece, estimate in zip(pieces, served, strict=True):
            try:
                compressor = self.downlink.compressor.within(self._context(piece, dtype))
                downlink = replace(self.downlink, compressor=compressor)
                known = self.down_states.of(piece, dtype)
                estimate = estimate.cpu() if self.downlink.memory else estimate
                codes.append(downlink.send(estimate, known, self._step(piece).key.fold(role="downlink")))
            except NonFiniteError as error:
                return Parcel(failure=f"the estimate of {piece.name}: {error}")
        return Parcel(tuple(codes))

    def received(self, what: Hashable, parcel: Parcel) -> list[Tensor]:
        """What a parcel's messages decode to, where every rank receives the same. Raises `NonFiniteError` for a
        failure.
        """
        if parcel.failure:
            raise NonFiniteError(parcel.failure)

        def compute() -> list[Tensor]:
            require_finite_codes(parcel.codes)
            return [decoded_on(self.device, code) for code in parcel.codes]

        return self.once(("received", what), compute)

    def came_down(self, pieces: Sequence[Piece], parcel: Parcel, dtype: torch.dtype) -> list[Tensor]:
        """The estimates that a parcel from `serve_down` stands for. Raises `NonFiniteError` for a failure."""
        if not self.downlink.memory:
            return self.received(pieces[0].name, parcel)
        if parcel.failure:
            raise NonFiniteError(parcel.failure)

        def compute() -> list[tuple[Tensor, State]]:
            require_finite_codes(parcel.codes)
            known = [self.down_states.of(piece, dtype) for piece in pieces]
            return [self.downlink.receive(code, own) for code, own in zip(parcel.codes, known, strict=True)]

        found = self.once(("down", pieces[0].name), compute)
        self._down_pending += [(piece, state) for piece, (_, state) in zip(pieces, found, strict=True)]
        return [estimate for estimate, _ in found]

    def uncompressed(self, vectors: Sequence[Tensor], pieces: Sequence[Piece]) -> Parcel:
        """The vectors as they are."""
        try:
            return Parcel(tuple(Identity().encode(vector) for vector in vectors))
        except NonFiniteError:
            names = [p.name for p, v in zip(pieces, vectors, strict=True) if not bool(v.isfinite().all())]
            return Parcel(failure=f"worker {self.rank}, {names[0]}: the gradient holds NaN or infinity")


def _no_estimate(d: int, dtype: torch.dtype) -> State:
    return {"last": torch.zeros(d, dtype=dtype)}
