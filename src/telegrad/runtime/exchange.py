"""Rounds of communication between M workers and their servers, wherever they live."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from operator import attrgetter
from typing import Any, final

from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import SpecError
from telegrad.kernels.device import away_from_default_device, on_gpu
from telegrad.kernels.threads import each
from telegrad.methods.base import Method
from telegrad.methods.downlink import Downlink
from telegrad.methods.gradient_method import GradientMethod
from telegrad.random import Key
from telegrad.runtime.expectations import Expected
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.member import Member
from telegrad.runtime.pieces import Piece, shard_of
from telegrad.runtime.snapshots import ledger_from, ledger_state
from telegrad.runtime.topologies import Topology
from telegrad.runtime.topologies.base import Phase
from telegrad.runtime.transport import Transport
from telegrad.spec import build
from telegrad.wire.code import Code
from telegrad.wire.parcel import Parcel

__all__ = ["Exchange", "Running", "exchange_of", "require_gradient_method"]

_name, _outgoing = attrgetter("name"), attrgetter("outgoing")


class Exchange:
    """A method's worker and server steps, along a topology, for the ranks that live in this process.

    A step is `begin`, any number of `run`s (or `start`s) over different pieces, and `commit`; what is not committed
    leaves no trace in any state. Bits are booked as they are sent, in steps that fail as well.

    `seconds`: how long this process took to `encode` first messages, and to `wait` for those of others. `measures`:
    whether `error` adds up the squared errors of the first worker's messages and the squared norms of its gradients.
    `errors`: given a dictionary, those errors are kept there, and `along` adds up their inner products with the
    gradients that are measured next.
    """

    def __init__(
        self,
        method: GradientMethod,
        topology: Topology,
        downlink: Compressor | Downlink,
        transport: Transport,
        key: Key,
    ) -> None:
        topology.check(transport.workers)
        down = downlink if isinstance(downlink, Downlink) else Downlink(downlink)
        if "last" in down.compressor.asks:
            raise SpecError(f"downlink={down}: what wants the last estimate cannot send it")
        self.method, self.topology, self.downlink, self.transport = method, topology, down, transport
        self._shared: dict[Hashable, Any] = {}
        workers = transport.workers
        self.members = [
            Member(rank, workers, method, down, key, self._shared, topology.method_workers(workers))
            for rank in transport.ranks
        ]
        self.ledger = Ledger(transport.workers, ranks=list(transport.ranks))
        self.seconds = {"encode": 0.0, "wait": 0.0}
        self.measures, self.error = False, (0.0, 0.0)
        self.errors: dict[tuple[str, int], Tensor] | None = None
        self.along = 0.0

    def begin(self, index: int, lr: float) -> None:
        """Enter step `index`, in which the optimizer's learning rate is `lr`."""
        self._shared.clear()
        self.transport.begin()
        for member in self.members:
            member.begin(index, lr)

    def takes_part(self, rank: int) -> bool:
        """Whether rank `rank` computes something in this step."""
        return self.members[0].round.has(self.topology.method_worker(rank))

    def placed(self, gradient: Tensor) -> Tensor:
        """The flat gradient where the method takes it: as it lies on a GPU where there are forms for one, so that only
        messages cross over; else on the CPU.
        """
        return gradient if on_gpu(gradient) and self.method.on_gpu(gradient) else gradient.cpu()

    @away_from_default_device
    def run(
        self, pieces: Sequence[Piece], gradients: Sequence[Sequence[Tensor]], overwrite: bool = False
    ) -> list[Tensor]:
        """The estimates, by piece, of the mean gradient of all workers.

        `gradients`: for each rank of this process, by piece, a flat vector. `overwrite`: an estimate may take the place
        of its gradient, and may be returned as that very vector. Raises `NonFiniteError`, on all ranks alike, naming
        the first worker and piece at fault.
        """
        return self.start(pieces, gradients, overwrite).finish()

    def start(self, pieces: Sequence[Piece], gradients: Sequence[Sequence[Tensor]], overwrite: bool = False) -> Running:
        """`run`, but only until the first messages are on their way: `finish` what this returns.

        Several may be under way, over different pieces; all ranks must start and finish them in the same order.
        """
        if overwrite:
            for member, own in zip(self.members, gradients, strict=True):
                member.workspaces.update(zip(map(_name, pieces), own, strict=True))
        return Running(self, pieces, gradients)

    def commit(self) -> None:
        """Make the states of this step those that count."""
        self._shared.clear()
        for member in self.members:
            member.commit()

    def save(self) -> dict[str, Any]:
        """The members' states and the account, as plain values and tensors of their own."""
        return {"members": [member.save() for member in self.members], "ledger": ledger_state(self.ledger)}

    @away_from_default_device
    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what `save` gave."""
        for member, own in zip(self.members, saved["members"], strict=True):
            member.load(own)
        self.ledger = ledger_from(saved["ledger"])


@final
class Running:
    """A round under way: its newest messages were sent and not yet looked at."""

    def __init__(self, exchange: Exchange, pieces: Sequence[Piece], gradients: Sequence[Sequence[Tensor]]) -> None:
        for member in exchange.members:
            member.device = gradients[0][0].device
        self._exchange, self._pieces, self._names = exchange, pieces, list(map(_name, pieces))
        self._dtype = gradients[0][0].dtype
        self._rounds, entries = [], 0
        for member, own in zip(exchange.members, gradients, strict=True):
            self._rounds.append(exchange.topology.round(member, pieces, own))
            entries += sum(map(Tensor.numel, own))
        began = time.perf_counter()
        # Up to its first messages a round is its worker's alone: they may run side by side.
        phases = each(next, self._rounds, entries) if len(self._rounds) > 1 else [next(self._rounds[0])]
        exchange.seconds["encode"] += time.perf_counter() - began
        if exchange.measures:
            self._measure(phases[0], gradients[0])
        self._send(phases)

    def _send(self, phases: list[Phase]) -> None:
        self._phases = phases
        expected = list(map(self._expected, phases))
        self._delivery = self._exchange.transport.send(list(map(_outgoing, phases)), expected)

    def _measure(self, phase: Phase, gradients: Sequence[Tensor]) -> None:
        """Add this worker's squared error, and the squared norm of its gradients, to the exchange's `error`."""
        workers, parcels = self._exchange.transport.workers, dict.fromkeys(phase.outgoing.values())
        pairs: dict[tuple[str, int], tuple[Code, Tensor]] = {}
        for receiver, parcel in phase.outgoing.items() if len(parcels) > 1 else [(0, next(iter(parcels), Parcel()))]:
            for code, piece, gradient in zip(parcel.codes, self._pieces, gradients, strict=False):
                own = gradient if len(parcels) == 1 else shard_of(gradient, piece, receiver, workers)
                if code.numel != len(own):
                    return  # neither the whole nor a shard, or nothing
                pairs[piece.name, receiver] = code, own.double().cpu()
        (error, square), kept = self._exchange.error, self._exchange.errors
        for place, (code, own) in pairs.items():
            rest = code.decode().double() - own
            error += float(rest.square().sum())
            square += float(own.square().sum())
            if kept is not None:
                before = kept.pop(place, None)
                self._exchange.along += float(before @ own) if before is not None else 0.0
                kept[place] = rest
        self._exchange.error = error, square

    def _expected(self, phase: Phase) -> Expected:
        exchange, shapes = self._exchange, dict(phase.expected)
        if phase.account in ("up", "both") and exchange.members[0].round.cohort is not None:
            shapes.update({sender: () for sender in shapes if not exchange.takes_part(sender)})
        ordered = "last" in exchange.method.asks and phase.account != "down"
        return Expected(shapes, self._dtype, ordered, phase.alike)

    def finish(self) -> list[Tensor]:
        """The estimates, by piece. Raises what `Exchange.run` raises."""
        while True:
            began = time.perf_counter()
            inboxes = self._delivery()
            self._exchange.seconds["wait"] += time.perf_counter() - began
            for member, phase, inbox in zip(self._exchange.members, self._phases, inboxes, strict=True):
                self._exchange.ledger.book(member.rank, phase.outgoing, inbox, phase.account, self._names)
            phases, estimates = [], []
            for member, one, inbox in zip(self._exchange.members, self._rounds, inboxes, strict=True):
                try:
                    phases.append(one.send(inbox))
                except StopIteration as end:
                    for piece, estimate in zip(self._pieces if member.wants_last else (), end.value, strict=False):
                        member.keep(estimate, piece, self._exchange.topology.as_worker(piece, member))
                    estimates.append(end.value)
            if estimates and phases:
                raise SpecError(
                    f"{self._exchange.topology}: some ranks yield once more than others; all yield equally often"
                )
            if estimates:
                return estimates[0]
            self._send(phases)


def exchange_of(
    method: str | Method | Compressor,
    topology: str | Topology,
    downlink: str | Compressor | None,
    transport: Transport,
    key: Key,
) -> Exchange:
    """The exchange that these specs describe. Raises `SpecError` where they do not fit each other."""
    chosen, how = require_gradient_method(build(method, "method")), build(topology, "topology")
    own = chosen.downlink()
    if own is None or (own.exact and not how.has_downlink):
        return Exchange(chosen, how, how.downlink(downlink, getattr(chosen, "compressor", None)), transport, key)
    if downlink is not None:
        raise SpecError(f"{chosen} has a downlink of its own, so leave out downlink={downlink}")
    if not how.has_downlink:
        raise SpecError(
            f"{chosen} compresses what comes down, and {how} sends no estimates; write topology=server or two_phase"
        )
    return Exchange(chosen, how, own, transport, key)


def require_gradient_method(method: Method) -> GradientMethod:
    """The method, where it needs no more than each worker's gradient of the step. Raises `SpecError` where it does."""
    if isinstance(method, GradientMethod):
        return method
    if not method.needs:
        raise SpecError(
            f"{method} is of no kind that can run; derive {type(method).__name__} from GradientMethod, OracleMethod, "
            "OuterMethod or AsynchronousMethod of telegrad.methods"
        )
    raise SpecError(
        f"{method} {method.needs}: an exchange of gradients, such as the hook of DDP or FSDP2, has only each worker's "
        f"gradient of its own backward pass. Run it by telegrad.simulate or under torchrun by "
        f"telegrad.runtime.distributed.train_distributed, or use for example {method.instead}"
    )
