"""A run of an oracle method: its steps for the ranks of this process, over a topology that relays messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.compressors.identity import Identity
from telegrad.errors import ConfigError, NonFiniteError, SpecError
from telegrad.methods.base import Contents, State, require_finite_codes
from telegrad.methods.clock import Clock
from telegrad.methods.oracle_method import Broadcast, Descent, Message, OracleMethod, OracleStep, Upload
from telegrad.random import Key
from telegrad.runtime.expectations import Expected, Shapes
from telegrad.runtime.flat import FlatModel, OptimizerStep
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.oracle import TaskOracle
from telegrad.runtime.snapshots import ledger_from, ledger_state
from telegrad.runtime.timeline import Timeline
from telegrad.runtime.together import Together
from telegrad.runtime.topologies import Topology
from telegrad.runtime.topologies.base import Inbox, Phase, Relay
from telegrad.runtime.transport import LocalTransport, Transport
from telegrad.wire.parcel import Parcel

__all__ = ["OracleRun", "packed", "read_parcel", "shapes_of"]


class OracleRun:
    """The steps of an oracle method. States of a step that fails are forgotten.

    `x`: by rank of this process, its parameters as a flat vector; one and the same where iterates are shared.
    """

    def __init__(
        self,
        method: OracleMethod,
        topology: Topology,
        downlink: str | Compressor | None,
        transport: Transport,
        key: Key,
        model: FlatModel,
        oracles: Mapping[int, TaskOracle],
        make_optimizer: Callable[[], OptimizerStep],
        clock: Clock | None,
        together: Together | None = None,
    ) -> None:
        topology.check(transport.workers)
        if not topology.relays:
            raise SpecError(f"{method} runs over topology=server or topology=allgather, not over {topology}")
        if downlink is not None and not method.takes_downlink:
            raise SpecError(f"{method} sends its iterates down as they are, so leave out downlink={downlink}")
        if method.needs_clock and clock is None:
            raise ConfigError(
                f"{method} plans by what gradients and messages cost each worker: write for example "
                "clock=telegrad.methods.Clock(gradient=[1, 2], message=1)"
            )
        down = topology.downlink(downlink, None)
        self.method, self.topology, self.transport, self.model = method, topology, transport, model
        self.oracles, self.ledger, self.encode_seconds = oracles, Ledger(transport.workers), 0.0
        simulated = clock is not None and isinstance(transport, LocalTransport)  # else it is only planned by
        self.timeline = Timeline(clock, transport.workers) if clock is not None and simulated else None
        start = model.vector()
        self._first = OracleStep(
            *(0, 0.0, key),
            workers=transport.workers,
            pieces=model.pieces,
            clock=clock,
            downlink=down,
            dtype=start.dtype,
        )
        self.x = dict.fromkeys(transport.ranks, start)
        self.states = {rank: method.worker_init(start) for rank in transport.ranks}
        self.server = method.server_init(start)
        self._make, self._together = make_optimizer, together
        self._optimizers: dict[int, OptimizerStep] = {}

    def step(self, index: int, lr: float) -> float:
        """Make step `index`; returns the workers' mean loss. Raises `NonFiniteError` on all ranks alike."""
        step = replace(self._first, index=index, lr=lr)
        step = replace(step, round=self.method.plan(step))
        uploads, states, loss = self._work(step)
        came, server = self._exchange(uploads, step) if step.round.sends else ({}, self.server)
        descend = self._descents(lr)
        moved = {}
        for rank in self.transport.ranks:
            own = replace(step, rank=rank)
            moved[rank] = self.method.update(self.x[rank], came.get(rank), states[rank], own, descend(rank))
        xs = [x for x, _ in moved.values()]
        if self.method.iterates == "shared" and any(x is not xs[0] and not x.equal(xs[0]) for x in xs):
            raise SpecError(
                f'{self.method}: update moves workers apart, and their iterates are shared; write iterates = "own", or '
                "let update give all of them the same x"
            )
        self.x = {rank: x for rank, (x, _) in moved.items()}
        self.states, self.server = {rank: state for rank, (_, state) in moved.items()}, server
        self._first = replace(self._first, done=self._first.done + 1)
        self.ledger.silent_steps += not step.round.sends
        self.ledger.dense_steps += step.round.sends and step.round.dense
        return loss

    def save(self) -> dict[str, Any]:
        """All that a later step depends on; plain values and tensors."""
        return {
            "x": self.x,
            "states": self.states,
            "server": self.server,
            "done": self._first.done,
            "oracles": {rank: oracle.save() for rank, oracle in self.oracles.items()},
            "optimizers": {rank: own.optimizer.state_dict() for rank, own in self._optimizers.items()},
            "ledger": ledger_state(self.ledger),
            "encode_seconds": self.encode_seconds,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what `save` gave."""
        self.x, self.states, self.server = saved["x"], saved["states"], saved["server"]
        self._first = replace(self._first, done=saved["done"])
        for rank, own in saved["oracles"].items():
            self.oracles[rank].load(own)
        for rank, own in saved["optimizers"].items():
            self._optimizers[rank] = self._make()
            self._optimizers[rank].optimizer.load_state_dict(own)
        self.ledger, self.encode_seconds = ledger_from(saved["ledger"]), saved["encode_seconds"]

    def show(self) -> None:
        """Set the model to the point that is evaluated; every rank must call this."""
        self.model.load(self.point())

    def point(self) -> Tensor:
        """The point that is evaluated, the same on all ranks; every rank must call this."""
        some = next(iter(self.x.values()))
        if self.method.iterates == "own":
            some = self.transport.gathered(torch.stack(list(self.x.values()))).mean(0)
        point = self.method.point(some, self.server)
        if isinstance(self.transport, LocalTransport):
            return point
        return self.transport.gathered(point[None])[getattr(self.topology, "rank", 0)]

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The workers' own buffers, stacked."""
        oracles = [self.oracles[rank] for rank in self.transport.ranks]
        return {name: torch.stack([oracle.buffers[name] for oracle in oracles]) for name in oracles[0].buffers}

    def _work(self, step: OracleStep) -> tuple[dict[int, Upload], dict[int, State], float]:
        """What the cohort uploads, all next states, and the mean loss."""
        uploads, states, told, failures = {}, dict(self.states), [], []
        cohort = [rank for rank in self.transport.ranks if step.round.has(rank)]
        for rank in cohort:
            self.oracles[rank].begin()
        if self._together is not None:
            self._together.begin(cohort)
        for rank in self.transport.ranks:
            oracle, failure = self.oracles[rank], ""
            took_part = rank in cohort
            if took_part:
                try:
                    own = replace(step, rank=rank)
                    upload, states[rank] = self.method.worker_step(oracle, self.x[rank], self.states[rank], own)
                    if upload is not None:
                        uploads[rank] = upload
                except NonFiniteError as error:
                    failure = str(error) if str(error).startswith("worker") else f"worker {rank}: {error}"
                self.ledger.gradients[rank] += oracle.gradients
                if self.timeline is not None:
                    self.timeline.compute(rank, oracle.gradients)
            failures.append(failure)
            told.append([oracle.loss if took_part else 0.0, float(took_part), float(bool(failure))])
        losses, parts, failed = self.transport.told(torch.tensor(told, dtype=torch.float64)).unbind(1)
        if failed.any():
            each = [text for texts in self.transport.objects(failures) for text in texts]
            raise NonFiniteError(next(text for text in each if text))
        return uploads, states, float(losses.sum() / parts.sum().clamp(min=1))

    def _exchange(self, uploads: Mapping[int, Upload], step: OracleStep) -> tuple[dict[int, Broadcast], State]:
        """What comes down to which ranks, and the server's next state."""
        served: list[tuple[Parcel, Sequence[int], State]] = []
        everyone = range(self.transport.workers)
        receivers = everyone if step.round.receivers is None else step.round.receivers

        def serve(inbox: Inbox) -> tuple[Parcel, Sequence[int]]:
            if not served:  # ranks that serve alike in one process do so once
                failure = _failure(inbox[rank] for rank in sorted(inbox))
                try:
                    if failure:  # only a stranger sends one: ranks tell each other of failures before
                        raise NonFiniteError(failure)
                    received = {rank: Upload(*read_parcel(inbox[rank], step)) for rank in sorted(inbox)}
                    broadcast, state = self.method.server_step(received, self.server, step)
                    self._require_planned("the server", broadcast, step.round.broadcast)
                    served.append((packed(broadcast), receivers, state))
                except NonFiniteError as error:
                    served.append((Parcel(failure=failure or f"the server: {error}"), everyone, self.server))
            return served[0][:2]

        for rank, upload in uploads.items():
            self._require_planned(f"worker {rank}", upload, step.round.upload_of(rank))
        ranks, parcels = self.transport.ranks, {rank: packed(upload) for rank, upload in uploads.items()}
        up = {rank: shapes_of(step.round.upload_of(rank), step) for rank in everyone if step.round.has(rank)}
        down = shapes_of(step.round.broadcast, step)
        programs = [
            self.topology.relay(rank, len(everyone), parcels.get(rank), serve, up, down if rank in receivers else None)
            for rank in ranks
        ]
        came = dict(zip(ranks, self._driven(programs, step), strict=True))
        if self.timeline is not None:
            self.timeline.exchange(self.ledger, {rank: len(upload.messages) for rank, upload in uploads.items()})
        failure = _failure(parcel for parcel in came.values() if parcel is not None)
        if failure:
            raise NonFiniteError(failure)
        there = {rank: parcel for rank, parcel in came.items() if parcel is not None}
        for parcel in dict.fromkeys(there.values()):
            require_finite_codes(parcel.codes)
        each = {parcel: Broadcast(*read_parcel(parcel, step)) for parcel in there.values()}  # one often goes to many
        return {rank: each[parcel] for rank, parcel in there.items()}, served[0][2] if served else self.server

    def _require_planned(self, who: str, upload: Upload, planned: Contents) -> None:
        found = Contents(len(upload.messages), len(upload.numbers))
        if found != planned:
            which = "broadcast" if isinstance(upload, Broadcast) else "upload"
            raise SpecError(f"{self.method}: {who} sends other than planned; let plan say Round({which}={found})")

    def _driven(self, programs: Sequence[Relay], step: OracleStep) -> list[Parcel | None]:
        """Run one program for each rank of this process, phase by phase; returns what each returns."""
        ranks, names = self.transport.ranks, [piece.name for piece in step.pieces]
        phases = [next(program) for program in programs]
        while True:
            expected = [self._expected(phase, step) for phase in phases]
            inboxes = self.transport.send([phase.outgoing for phase in phases], expected)()
            following, ended = [], []
            for rank, program, phase, inbox in zip(ranks, programs, phases, inboxes, strict=True):
                self.ledger.book(rank, phase.outgoing, inbox, phase.account, _names(phase.outgoing, names))
                try:
                    following.append(program.send(inbox))
                except StopIteration as end:
                    ended.append(end.value)
            if ended:
                return ended
            phases = following

    def _expected(self, phase: Phase, step: OracleStep) -> Expected:
        to_all = phase.account != "down" or step.round.receivers is None
        return Expected(phase.expected, step.dtype, alike=phase.alike and to_all)

    def _descents(self, lr: float) -> Callable[[int], Descent]:
        """The optimizer's step for a rank; where iterates are shared it is made once, for all ranks."""
        shared = self.method.iterates == "shared"
        made: dict[int, Tensor] = {}

        def of(rank: int) -> Descent:
            whose = 0 if shared else rank

            def descend(x: Tensor, gradient: Tensor) -> Tensor:
                if not shared or whose not in made:
                    if whose not in self._optimizers:
                        self._optimizers[whose] = self._make()
                    self._optimizers[whose].lr = lr
                    made[whose] = self._optimizers[whose](x, gradient)
                return made[whose]

            return descend

        return of


def packed(upload: Upload) -> Parcel:
    """What travels: the messages piece by piece, then the plain numbers."""
    numbers = [Identity().encode(torch.tensor(number, dtype=torch.float64)) for number in upload.numbers]
    return Parcel((*(code for message in upload.messages for code in message.codes), *numbers))


def shapes_of(contents: Contents, step: OracleStep) -> Shapes:
    """The shapes of what the messages of a parcel with these contents stand for."""
    return (*(contents.messages * [(piece.numel,) for piece in step.pieces]), *(contents.numbers * [()]))


def read_parcel(parcel: Parcel, step: OracleStep) -> tuple[tuple[Message, ...], tuple[float, ...]]:
    """Messages and numbers of a parcel: numbers are the codes of shape ()."""
    vectors, count = [code for code in parcel.codes if code.shape != ()], len(step.pieces)
    numbers = tuple(float(code.decode()) for code in parcel.codes if code.shape == ())
    starts = range(0, len(vectors), count)
    return tuple(Message(tuple(vectors[start : start + count])) for start in starts), numbers


def _failure(parcels: Iterable[Parcel]) -> str:
    return next((parcel.failure for parcel in parcels if parcel.failure), "")


def _names(outgoing: Mapping[int, Parcel], names: Sequence[str]) -> list[str]:
    """The piece of every code of what a rank sends: pieces in turn, then plain numbers."""
    codes = max((parcel.codes for parcel in outgoing.values()), key=len, default=())
    vectors = sum(code.shape != () for code in codes)
    return [*(names[i % len(names)] for i in range(vectors)), *["numbers"] * (len(codes) - vectors)]
