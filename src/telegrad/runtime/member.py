"""A member: one rank's part in the exchange, with what it remembers as a worker and as a server."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.errors import NonFiniteError
from telegrad.methods.base import Method, State, Step
from telegrad.random import Key
from telegrad.runtime.pieces import Piece, shard_of
from telegrad.runtime.states import States
from telegrad.wire.last_estimate import LastEstimate
from telegrad.wire.parcel import Parcel

__all__ = ["Member"]

T = TypeVar("T")


class Member:
    """Worker `rank` of `workers`, and the server of whatever its topology gives it to serve.

    States that a round brings are pending until `commit`. `shared`, a dictionary common to all members that live in one
    process, spares them from computing alike what all ranks compute alike. `workspaces`: vectors by piece that a
    server's step may overwrite.
    """

    def __init__(
        self, rank: int, workers: int, method: Method, downlink: Compressor, key: Key, shared: dict[Hashable, Any]
    ) -> None:
        self.rank, self.workers, self.method, self.downlink, self.key = rank, workers, method, downlink, key
        self.worker_states, self.server_states = States(method.worker_init), States(method.server_init)
        self.last_estimates = States(_no_estimate)
        self._shared = shared
        self._worker_pending: dict[Piece, State] = {}
        self._server_pending: dict[Piece, State] = {}
        self._last_pending: dict[Piece, State] = {}
        self._index, self._lr = 0, 0.0
        self.workspaces: dict[Piece, Tensor] = {}

    def begin(self, index: int, lr: float) -> None:
        """Enter step `index`, and forget what a step before left pending."""
        self._index, self._lr = index, lr
        self._worker_pending, self._server_pending, self._last_pending, self.workspaces = {}, {}, {}, {}

    def commit(self) -> None:
        """Make the pending states those that count."""
        self.worker_states.update(self._worker_pending)
        self.server_states.update(self._server_pending)
        self.last_estimates.update(self._last_pending)

    def keep(self, estimate: Tensor, piece: Piece, shards: Sequence[Piece]) -> None:
        """Remember the estimate of `piece`, by the shards that the worker cuts it into, for a method that wants it in
        the next step.
        """
        for i, shard in enumerate(shards if self.method.wants_last else ()):
            own = self.once(("kept", shard.name), lambda i=i: shard_of(estimate, piece, i, len(shards)))  # type: ignore[misc]
            self._last_pending[shard] = {"last": own}

    def remember(self, as_worker: Sequence[Piece], as_server: Sequence[Piece], dtype: torch.dtype) -> None:
        """Have states for these pieces, initial ones where there are none yet: what a checkpoint must list."""
        for pieces, states in ((as_worker, self.worker_states), (as_server, self.server_states)):
            states.update({piece: states.of(piece, dtype) for piece in pieces})
        if self.method.wants_last:
            self.last_estimates.update({piece: self.last_estimates.of(piece, dtype) for piece in as_worker})

    def _step(self, piece: Piece) -> Step:
        return Step(self._index, self._lr, self.key.fold(step=self._index, piece=piece.name))

    def _last(self, piece: Piece, dtype: torch.dtype) -> LastEstimate:
        return self.once(("last", piece.name), lambda: LastEstimate(self.last_estimates.of(piece, dtype)["last"]))

    def _method_for(self, piece: Piece, dtype: torch.dtype) -> Method:
        """The method as it treats this piece in this step, the same on all ranks."""
        method = self.method.for_shape(piece.shape)
        if not method.wants_last:
            return method
        return self.once(("method", piece.name), lambda: method.after(self._last(piece, dtype)))

    def once(self, what: Hashable, compute: Callable[[], T]) -> T:
        """The result of `compute`, which is the same on all ranks."""
        if what not in self._shared:
            self._shared[what] = compute()
        result: T = self._shared[what]
        return result

    def encode(self, pieces: Sequence[Piece], gradients: Sequence[Tensor], worker: int | None = None) -> Parcel:
        """The worker's messages for its gradients, as worker number `worker` (its rank)."""
        worker, codes = self.rank if worker is None else worker, []
        for piece, gradient in zip(pieces, gradients, strict=True):
            state = self.worker_states.of(piece, gradient.dtype)
            try:
                method = self._method_for(piece, gradient.dtype)
                code, state = method.worker_step(gradient, state, worker, self._step(piece))
            except NonFiniteError as error:
                return Parcel(failure=f"worker {worker}, {piece.name}: {error}")
            self._worker_pending[piece] = state
            codes.append(code)
        return Parcel(tuple(codes))

    def serve(self, pieces: Sequence[Piece], inbox: Mapping[int, Parcel], dtype: torch.dtype) -> list[Tensor] | str:
        """The server's estimates for the workers' messages, in the order of ranks; or why there are none."""
        parcels = [inbox[rank] for rank in sorted(inbox)]
        failure = next((parcel.failure for parcel in parcels if parcel.failure), None)
        if failure is not None:
            return failure
        estimates = []
        for number, piece in enumerate(pieces):
            codes = [parcel.codes[number] for parcel in parcels]
            if self.method.wants_last:
                codes = [code.after(self._last(piece, dtype)) for code in codes]
            state = self.server_states.of(piece, dtype)
            step = replace(self._step(piece), workspace=self.workspaces.get(piece))
            try:
                estimate, self._server_pending[piece] = self.method.server_step(codes, state, step)
            except NonFiniteError as error:
                return f"{piece.name}: {error}"
            estimates.append(estimate.to(dtype))
        return estimates

    def serve_alike(
        self, what: str, pieces: Sequence[Piece], inbox: Mapping[int, Parcel], dtype: torch.dtype
    ) -> list[Tensor]:
        """`serve` where every rank serves the same. Raises `NonFiniteError` in place of a reason."""

        def compute() -> tuple[list[Tensor] | str, dict[Piece, State]]:
            found = self.serve(pieces, inbox, dtype)
            return found, {p: self._server_pending[p] for p in pieces if p in self._server_pending}

        found, states = self.once((what, *(piece.name for piece in pieces)), compute)
        self._server_pending.update(states)
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
                downlink = self.downlink.for_shape(piece.shape)
                codes.append(downlink.encode(estimate, self._step(piece).key.fold(role="downlink")))
            except NonFiniteError as error:
                return Parcel(failure=f"the estimate of {piece.name}: {error}")
        return Parcel(tuple(codes))

    def received(self, what: Hashable, parcel: Parcel) -> list[Tensor]:
        """What a parcel's messages decode to, where every rank receives the same. Raises `NonFiniteError` for a
        failure.
        """
        if parcel.failure:
            raise NonFiniteError(parcel.failure)
        return self.once(("received", what), lambda: [code.decode() for code in parcel.codes])

    def uncompressed(self, vectors: Sequence[Tensor], pieces: Sequence[Piece]) -> Parcel:
        """The vectors as they are."""
        try:
            return Parcel(tuple(Identity().encode(vector) for vector in vectors))
        except NonFiniteError:
            names = [p.name for p, v in zip(pieces, vectors, strict=True) if not bool(v.isfinite().all())]
            return Parcel(failure=f"worker {self.rank}, {names[0]}: the gradient holds NaN or infinity")


def _no_estimate(d: int, dtype: torch.dtype) -> State:
    return {"last": torch.zeros(d, dtype=dtype)}
