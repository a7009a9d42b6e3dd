"""DistributedDataParallel in one line: `telegrad.ddp.register(model, "mlmc(stopk(s=0.01))")`."""

# Annotations must be real types here: DDP looks at those of its hook.

import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, InputError, NonFiniteError, TelegradWarning
from telegrad.methods.base import Method
from telegrad.random import Key
from telegrad.runtime.agreement import check_alike, check_no_drift, own_group
from telegrad.runtime.bad_steps import BadSteps
from telegrad.runtime.conveyor import Conveyor, Load
from telegrad.runtime.exchange import Exchange, exchange_of, method_of
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.pieces import Granularity, Part, Piece, pieces_of
from telegrad.runtime.topologies import Topology
from telegrad.runtime.transport import GroupTransport

__all__ = ["Handle", "register"]


def register(
    model: DistributedDataParallel,
    spec: str | Method | Compressor,
    *,
    topology: str | Topology = "allgather",
    downlink: str | Compressor | None = None,
    granularity: Granularity = "bucket",
    process_group: dist.ProcessGroup | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    grad_scaler: torch.amp.GradScaler | None = None,
    seed: int = 0,
    check_every: int = 0,
) -> "Handle":
    """Let `model` exchange its gradients compressed, from now on; every rank must make the same call.

    `spec`: a method, or a compressor, which stands for sgd(compressor). `topology`, `downlink`: how messages travel
    ("allgather", "two_phase", "server", "hierarchical(node=8)"). `granularity`: what one compressor call sees: a bucket
    of up to DDP's `bucket_cap_mb`, each parameter, or the whole model (then nothing overlaps with the backward pass).
    `process_group`: whose ranks take part (the model's own by default); a new group of the same ranks is made, since
    exchanges run beside whatever else is communicated. `optimizer`: whose learning rate methods like ef14 put inside
    their memory (its first parameter group's; 1 without one). `grad_scaler`: given one, what is compressed and
    remembered is unscaled, so that a change of scale does not spoil error memory. `check_every`: compare the
    parameters of all ranks every so many steps, and raise `DriftError` naming the first that differs.

    A step with a non-finite gradient on any rank leaves every gradient infinite on all ranks and no trace in any state:
    a `GradScaler` lowers its scale, and torch optimizers, of any kind, leave out that step.
    Raises `ConfigError` where ranks do not agree, with the difference, `SpecError` where parts do not fit. In a step,
    `CommunicationError` comes out of `backward` within the group's timeout where a worker is lost.
    """
    if not isinstance(model, DistributedDataParallel):
        raise InputError(
            f"a {type(model).__name__} has no gradient exchange to replace: write "
            "telegrad.ddp.register(DistributedDataParallel(model), …); for fully_shard see telegrad.fsdp.register"
        )
    transport = GroupTransport(own_group(process_group or model.process_group))
    exchange = exchange_of(method_of(spec), topology, downlink, transport, Key(seed))
    handle = Handle(model, exchange, granularity, optimizer, grad_scaler, check_every)
    check_alike(transport, {**handle.configuration(), "seed": seed, "check_every": check_every})
    model.register_comm_hook(handle, _hook)
    return handle


def _hook(handle: "Handle", bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    return handle._take(bucket)


class Handle:
    """What `register` returns: the account and the state of a model's compressed exchange.

    `ledger`: this rank's rows of the account; `gathered_ledger()` adds up those of all ranks.
    """

    def __init__(
        self,
        model: DistributedDataParallel,
        exchange: Exchange,
        granularity: Granularity,
        optimizer: torch.optim.Optimizer | None,
        grad_scaler: torch.amp.GradScaler | None,
        check_every: int,
    ) -> None:
        self.exchange, self.granularity, self.check_every = exchange, granularity, check_every
        self.optimizer, self.grad_scaler = optimizer, grad_scaler
        self.parameters = {
            name.replace("_orig_mod.", ""): parameter  # torch.compile's wrapper is no part of a name
            for name, parameter in model.module.named_parameters()
            if parameter.requires_grad
        }
        self.pieces = pieces_of(self.parameters, granularity, model.bucket_bytes_cap)
        self._model = model
        self._names = {parameter: name for name, parameter in self.parameters.items()}
        self._conveyor = Conveyor(self)
        self._loads: list[Load] = []
        self._waiting: list[Piece] = []
        self._room: dict[Piece, Tensor] = {}
        self._under_way: deque[Callable[[], None]] = deque()
        self._step, self._taken, self._warned = 0, True, False
        self._bad_steps = BadSteps(lambda: self._names, lambda: self._step - 1, self._note_step)

    @property
    def ledger(self) -> Ledger:
        """This rank's rows of the account."""
        return self.exchange.ledger

    @property
    def steps(self) -> int:
        """Steps so far, skipped ones included."""
        return self._step

    def gathered_ledger(self) -> Ledger:
        """The account of all ranks; every rank must call this, outside of a backward pass."""
        return Ledger.merged(self.exchange.transport.objects(self.ledger))

    def configuration(self) -> dict[str, Any]:
        """What all ranks must agree on."""
        return {
            "method": str(self.exchange.method),
            "topology": str(self.exchange.topology),
            "downlink": str(self.exchange.downlink),
            "granularity": self.granularity,
            "pieces": [piece.name for piece in self.pieces],
            "parameters": [(name, tuple(p.shape), str(p.dtype)) for name, p in self.parameters.items()],
        }

    def _take(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """DDP's hook: queue a bucket, and promise its estimate."""
        buffer = bucket.buffer()
        if buffer.layout != torch.strided:
            raise InputError("sparse gradients cannot be compressed; build the embedding with sparse=False")
        joined = self._model._join_config.enable  # ranks that ran out of inputs exchange without steps
        if not self._loads and not self._taken and not self._warned and not joined:
            self._warned = True
            warnings.warn(
                "two backward passes exchanged gradients with no optimizer step between them: what was exchanged is "
                "compressed again. Accumulate under model.no_sync(), and leave only the last pass out of it",
                TelegradWarning,
                stacklevel=2,
            )
        parameters = bucket.parameters()
        flat = buffer.split([p.numel() for p in parameters])
        views = {self._names[p]: view for p, view in zip(parameters, flat, strict=True)}
        load = Load(buffer, views, bucket.is_last())
        self._loads.append(load)
        if load.last:
            self._taken = False
            self._loads = []
        self._conveyor.put(load)
        return load.future

    def ship(self, loads: list[Load], start: bool) -> None:
        """On the conveyor's thread: exchange what has become complete. `loads`: all of the step so far."""
        if start:
            self._waiting = list(self.pieces)
            if self.check_every and self._step % self.check_every == 0:
                check_no_drift(self.exchange.transport, self.parameters, self._step)
            self.exchange.begin(self._step, self.optimizer.param_groups[0]["lr"] if self.optimizer else 1.0)
        views = {name: view for load in loads for name, view in load.views.items()}
        ready = [piece for piece in self._waiting if all(part.name in views for part in piece.parts)]
        self._waiting = [piece for piece in self._waiting if piece not in ready]
        if ready and self._step not in self._bad_steps:
            self._under_way.append(self._start(ready, [[views[part.name] for part in piece.parts] for piece in ready]))
        # While the newest messages travel, those before are decoded; never by the clock, so that all ranks do the same.
        while len(self._under_way) > (0 if loads[-1].last else 1):
            try:
                self._under_way.popleft()()
            except NonFiniteError as error:
                self._bad_steps.add(self._step, error)
        if loads[-1].last:
            self._finish(loads)

    def _start(self, pieces: list[Piece], views: list[list[Tensor]]) -> Callable[[], None]:
        """Send what these pieces' gradients, given as views by part, are compressed to; in return, what overwrites them
        with the estimates of their means.
        """
        scale = float(self.grad_scaler.get_scale()) if self.grad_scaler is not None else 1.0
        vectors = [self._joined(piece, own) for piece, own in zip(pieces, views, strict=True)]
        sent = [vector.cpu() if scale == 1.0 else vector.cpu() / scale for vector in vectors]
        running = self.exchange.start(pieces, [sent], overwrite=True)
        return lambda: self._overwrite(views, vectors, running.finish(), scale)

    def _overwrite(
        self, views: list[list[Tensor]], vectors: list[Tensor], estimates: list[Tensor], scale: float
    ) -> None:
        for own, vector, estimate in zip(views, vectors, estimates, strict=True):
            scaled = estimate if scale == 1.0 else estimate * scale
            if vector.data_ptr() != own[0].data_ptr():
                for view, part in zip(own, scaled.split([view.numel() for view in own]), strict=True):
                    view.copy_(part)
            elif scaled.data_ptr() != vector.data_ptr():
                vector.copy_(scaled)

    def _joined(self, piece: Piece, views: list[Tensor]) -> Tensor:
        """The piece's gradients as one vector: DDP's buffer itself where they lie in it in this order, else a copy."""
        ends = [view.data_ptr() + view.nbytes for view in views]
        if all(end == view.data_ptr() for end, view in zip(ends[:-1], views[1:], strict=True)):
            return views[0].as_strided((piece.numel,), (1,))
        if piece not in self._room:
            self._room[piece] = torch.empty(piece.numel, dtype=views[0].dtype, device=views[0].device)
        return torch.cat(views, out=self._room[piece])

    def _finish(self, loads: list[Load]) -> None:
        self.ledger.skipped_steps = self._bad_steps.count
        if self._step in self._bad_steps:
            for load in loads:
                load.buffer.fill_(torch.inf)
        else:
            self.exchange.commit()
        self.ledger.steps += 1
        self._step += 1

    def _note_step(self) -> None:
        self._taken = True

    def state_dict(self) -> dict[str, Any]:
        """What this rank needs to go on: the step, and this rank's memory as worker and server, by parameter.

        Keys carry the rank, so that torch.distributed.checkpoint keeps those of all ranks side by side.
        """
        (member,) = self.exchange.members
        for name, parameter in self.parameters.items():
            piece, topology = Piece(name, (Part(name, 0, parameter.numel()),)), self.exchange.topology
            member.remember(topology.as_worker(piece, member), topology.as_server(piece, member), parameter.dtype)
        return {
            "step": self._step,
            "workers": member.workers,
            "configuration": self.configuration(),
            f"rank{member.rank}": member.save(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave: bit for bit with the same number of ranks.

        With another number of ranks, a method without memory just goes on; one with memory starts it anew, and says so:
        what the old ranks' workers still owed is dropped. Raises `ConfigError` where the configuration was another.
        """
        then, now = state["configuration"], self.configuration()
        differing = [name for name in now if then.get(name) != now[name]]
        if differing:
            name = differing[0]
            raise ConfigError(
                f"the state was saved with {name}={then.get(name)!r}, and this handle has {name}={now[name]!r}"
            )
        (member,) = self.exchange.members
        own = state.get(f"rank{member.rank}")
        self._step = int(state["step"])
        self._bad_steps.forget()
        if state["workers"] == member.workers and own is not None:
            member.load(own)
            return
        member.load({})
        held = self.state_dict()[f"rank{member.rank}"]
        if any(held.values()):
            warnings.warn(
                f"the state of {state['workers']} ranks does not fit {member.workers}: the memory of "
                f"{self.exchange.method} starts anew",
                TelegradWarning,
                stacklevel=2,
            )
