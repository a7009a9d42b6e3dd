"""DistributedDataParallel in one line: `telegrad.ddp.register(model, "mlmc(stopk(s=0.01))")`."""

# Annotations must be real types here: DDP looks at those of its hook.

import contextlib
import copy
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Variable
from torch.nn.parallel import DistributedDataParallel

from telegrad.compressors.base import Compressor
from telegrad.errors import CommunicationError, ConfigError, InputError, NonFiniteError, TelegradWarning
from telegrad.methods.base import Method
from telegrad.methods.sgd import SGD
from telegrad.random import Key
from telegrad.runtime.agreement import check_alike, check_no_drift, leave, own_group
from telegrad.runtime.bad_steps import BadSteps
from telegrad.runtime.choosing import Automatic, automatic
from telegrad.runtime.comm_hook import CommHook, Load, hook_of, reduced_parameters
from telegrad.runtime.conveyor import Conveyor
from telegrad.runtime.exchange import Exchange, exchange_of
from telegrad.runtime.handle import Handle as AnyHandle
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.memory import load_memory, memory_of
from telegrad.runtime.meter import Meter, reading
from telegrad.runtime.pieces import Granularity, Piece, pieces_of
from telegrad.runtime.rate_advice import RateAdvice
from telegrad.runtime.shapes import granularity_for, warn_of_lost_shapes
from telegrad.runtime.topologies import Topology
from telegrad.runtime.transport import GroupTransport
from telegrad.runtime.wasted_passes import WastedPasses
from telegrad.spec import build
from telegrad.theory.diagnosis import Diagnosis, Loss, diagnose

__all__ = ["Automatic", "Handle", "register"]


def register(
    model: DistributedDataParallel,
    spec: str | Method | Compressor | Automatic,
    *,
    topology: str | Topology = "allgather",
    downlink: str | Compressor | None = None,
    granularity: Granularity | None = None,
    process_group: dist.ProcessGroup | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    grad_scaler: torch.amp.GradScaler | None = None,
    seed: int = 0,
    check_every: int = 0,
) -> "Handle":
    """Let a DDP model exchange its gradients compressed, from now on; every rank must make the same call.

    What DDP averages is exchanged: not what it was told to ignore or to delay, and not what was frozen when it was
    built, of which there is a warning. A step with a non-finite gradient on any rank leaves every gradient infinite on
    all ranks and no trace in any state: a `GradScaler` lowers its scale, and torch optimizers, of any kind, leave out
    that step, also within `step(closure)`.

    Args:
        model: whose gradients are exchanged.
        spec: a method, or a compressor, which stands for sgd(compressor); or "auto", which measures the link and the
            processors in the first steps, and takes compressor and topology, or plain DDP, of the least time to a
            target ("auto(patience=1.5)": see `Automatic`; the handle's `choice` says which and why).
        topology: how messages travel: "allgather", "two_phase", "server", "hierarchical(node=8)".
        downlink: an unbiased compressor of what servers send; None: the topology's usual one.
        granularity: what one compressor call sees: a "bucket" of up to DDP's `bucket_cap_mb`, each parameter
            ("tensor"), or the whole "model" (then nothing overlaps with the backward pass); None: buckets, and tensors
            for compressors that look at their shapes, as powersgd does.
        process_group: whose ranks take part; None: the model's own. A new group of the same ranks is made, since
            exchanges run beside whatever else is communicated.
        optimizer: whose learning rate methods like ef14 put inside their memory (that of its first parameter group);
            None: 1.
        grad_scaler: given one, what is compressed and remembered is unscaled, so that a change of scale does not spoil
            error memory.
        seed: of every draw of the compressors.
        check_every: compare the parameters of all ranks every so many steps, and raise `DriftError` naming the first
            that differs; 0: never.

    Returns:
        A handle: `ledger`, `metrics()`, `state_dict()`, `remove()` and more.

    Raises:
        ConfigError: ranks do not agree, with the difference, or the model has a communication hook already.
        SpecError: a spec is wrong, or its parts do not fit each other.
        InputError: `model` is no `DistributedDataParallel`.
        CommunicationError: a worker is lost; in a step, out of `backward`, within the group's timeout.

    Example:
        model = DistributedDataParallel(model)
        handle = telegrad.ddp.register(model, "auto(bits=1)")
        ...  # train as before
        print(handle.ledger.bits_up_per_worker)
    """
    if not isinstance(model, DistributedDataParallel):
        raise InputError(
            f"a {type(model).__name__} has no gradient exchange to replace: write "
            "telegrad.ddp.register(DistributedDataParallel(model), …); for fully_shard see telegrad.fsdp.register"
        )
    rule = automatic(spec)
    if rule is not None:
        _check_free_to_choose(model, rule, topology, downlink)
    hook, parameters = hook_of(model), reduced_parameters(model)
    group = own_group(process_group or model.process_group)
    transport = GroupTransport(group)
    try:
        method = build(spec if rule is None else "identity", "method")
        exchange = exchange_of(method, topology, downlink, transport, Key(seed))
        pieces = pieces_of(parameters, granularity or granularity_for(method), model.bucket_bytes_cap)
        warn_of_lost_shapes(exchange, pieces, parameters)
        parts = (model, hook, group, exchange, parameters, pieces, optimizer, grad_scaler, check_every)
        handle = Handle(*parts) if rule is None else _automatic_handle(*parts, rule=rule, seed=seed)
        check_alike(transport, {**handle.configuration(), "seed": seed, "check_every": check_every})
    except BaseException:
        leave(group)
        raise
    hook.receiver = handle._receive
    return handle


def _check_free_to_choose(
    model: DistributedDataParallel, rule: Automatic, topology: str | Topology, downlink: str | Compressor | None
) -> None:
    if str(topology) != "allgather" or downlink is not None:
        raise ConfigError(f"{rule} chooses how messages travel: leave out topology and downlink")
    if getattr(model, "skip_all_reduce_unused_params", False):
        raise ConfigError(f"{rule} needs all buckets in every step: leave out skip_all_reduce_unused_params, or {rule}")


def _automatic_handle(*parts: Any, rule: Automatic, seed: int) -> "Handle":
    from telegrad.runtime.automatic import AutomaticHandle  # which is a Handle

    return AutomaticHandle(*parts, rule=rule, seed=seed)


class Handle(AnyHandle):
    """What `register` returns: takes DDP's buckets, exchanges them on a thread of its own, and writes the estimates
    back; with the account and the state of it.

    `ledger`: this rank's rows of the account; `gathered_ledger()` adds up those of all ranks. `parameters`: those that
    are exchanged, by name. `pieces`: what one compressor call sees.
    """

    def __init__(
        self,
        model: DistributedDataParallel,
        hook: CommHook,
        group: dist.ProcessGroup,
        exchange: Exchange,
        parameters: dict[str, torch.nn.Parameter],
        pieces: list[Piece],
        optimizer: torch.optim.Optimizer | None,
        grad_scaler: torch.amp.GradScaler | None,
        check_every: int,
    ) -> None:
        self.exchange, self.parameters, self.pieces = exchange, parameters, pieces
        self.optimizer, self.grad_scaler, self.check_every = optimizer, grad_scaler, check_every
        piece_of: dict[Tensor, int] = {
            parameters[part.name]: number for number, piece in enumerate(pieces) for part in piece.parts
        }
        self._group, self._piece_of = group, piece_of
        self._hook, self._conveyor = hook, Conveyor(self)
        remembers = any(memory_of(exchange, parameters)["worker"].values())
        self._wasted = WastedPasses(list(parameters.values()), str(exchange.method) if remembers else None)
        self._bad_steps = BadSteps(lambda: piece_of, self._wasted.used)
        if dist.get_backend(group) == "gloo":  # NCCL's groups can only be left by all ranks at once
            weakref.finalize(self, leave, group).atexit = False
        self._meter = Meter(sum(8 * p.numel() * p.element_size() for p in parameters.values()), self._advice())
        self._model = weakref.ref(model)  # whose reducer keeps this handle alive
        self._skips = getattr(model, "skip_all_reduce_unused_params", False)
        self._step, self._first, self._left_out = 0, True, False
        self._through = threading.Event()
        # Of the thread:
        self._views: dict[Tensor, Tensor] = {}
        self._loads: list[Load] = []
        self._missing: list[int] = []
        self._room: dict[str, Tensor] = {}
        self._under_way: deque[Callable[[], None]] = deque()
        self._error: BaseException | None = None
        self._stream: Any = None

    def _advice(self) -> RateAdvice | None:
        return RateAdvice.of(self.exchange)

    @property
    def ledger(self) -> Ledger:
        return self.exchange.ledger

    @property
    def steps(self) -> int:
        return self._step

    def gathered_ledger(self) -> Ledger:
        return Ledger.merged(self.exchange.transport.objects(self.ledger))

    def diagnose(self, batches: Iterable[tuple[Any, Any]], loss: Loss | None = None, **options: Any) -> Diagnosis:
        """This rank's gradients on `batches`, uncompressed and without any exchange, as `telegrad.diagnose` sees them.

        Outside of a backward pass; other ranks need not take part. Advice is for as many workers as there are ranks.
        """
        model = self._model()
        if model is None:
            raise InputError("the model of this handle is gone")
        return diagnose(model.module, batches, loss, workers=self.exchange.transport.workers, **options)

    def configuration(self) -> dict[str, Any]:
        """What all ranks must agree on."""
        return {
            "method": str(self.exchange.method),
            "topology": str(self.exchange.topology),
            "downlink": str(self.exchange.downlink),
            "pieces": [piece.name for piece in self.pieces],
            "parameters": [(name, tuple(p.shape), str(p.dtype)) for name, p in self.parameters.items()],
        }

    @contextlib.contextmanager
    def left_out(self) -> Iterator[None]:
        """Backward passes inside exchange nothing and enter no memory; every rank keeps gradients of its own.

        For gradients that are thrown away, as those that a generator's loss leaves in the discriminator. Forward passes
        may lie outside, unlike those of `model.no_sync()`. All ranks must leave out the same passes.
        """
        before, self._left_out = self._left_out, True
        try:
            yield
        finally:
            self._left_out = before

    def _receive(self, load: Load) -> None:
        """Queue a bucket, in the backward pass."""
        if self._left_out:
            load.future.set_result(load.buffer)
            return
        if self._first:
            self._bad_steps.begin()
            self._through = threading.Event()
        if load.last if not self._skips else self._first:
            # A future hands its error on as a bare RuntimeError; a callback at the end of backward raises it as it is.
            with contextlib.suppress(RuntimeError):  # outside of a backward pass, as for ranks that have joined
                Variable._execution_engine.queue_callback(self._after_backward)
        self._first = load.last
        if load.last:
            self._wasted.handed_over()
        self._conveyor.put(lambda: self._ship(load))

    def _after_backward(self) -> None:
        if not self._first:  # DDP skipped the bucket that would have been the last
            self._first = True
            self._wasted.handed_over()
            self._conveyor.put(self._end)
        self._through.wait()
        if self._error is not None:  # a copy: the error itself must not get a traceback, which would hold the model
            raise copy.copy(self._error) from self._error
        Variable._execution_engine.queue_callback(self._after_write_back)  # DDP hands the gradients out in between

    def _after_write_back(self) -> None:
        self._wasted.written(self._bad_steps.newest)
        if self._bad_steps.newest:
            self._bad_steps.mark(self.parameters.values())

    def _ship(self, load: Load) -> None:
        """On the thread: exchange what has become complete, and fulfil the promises at the end of a step.

        An error goes to all futures of the step, and to those of every later one: the ranks are no longer in step.
        """
        self._loads.append(load)
        with self._stream_after(load):
            if self._error is None:
                try:
                    self._exchange(load)
                except BaseException as error:
                    self._error = error
            if load.last or self._error is not None:
                self._end()

    def _end(self) -> None:
        """The end of a step, of which all that DDP hands over has come."""
        if self._error is None:
            try:
                self._finish()
            except BaseException as error:
                self._error = error
        for one in self._loads:
            if self._error is None:
                one.future.set_result(one.buffer)
            else:  # not the error itself: DDP keeps the future, and a traceback would keep the model alive with it
                one.future.set_exception(CommunicationError(str(self._error)))  # type: ignore[arg-type]
        self._loads, self._views = [], {}
        self._through.set()

    def _stream_after(self, load: Load) -> contextlib.AbstractContextManager[Any]:
        """A stream of the thread's own that waits for the load's gradients, on a GPU; nothing elsewhere."""
        if load.ready is None:
            return contextlib.nullcontext()
        if self._stream is None:
            self._stream = torch.cuda.Stream(load.buffer.device)
        self._stream.wait_event(load.ready)
        return torch.cuda.stream(self._stream)

    def _exchange(self, load: Load) -> None:
        if len(self._loads) == 1:
            self._begin()
        self._views.update(load.views)
        ready = []
        for parameter in load.views:
            number = self._piece_of[parameter]
            self._missing[number] -= 1
            if not self._missing[number]:
                ready.append(number)
        if ready and not self._bad_steps.newest:
            self._under_way.append(self._start([self.pieces[number] for number in sorted(ready)]))
        # While the newest messages travel, those before are decoded; never by the clock, so that all ranks do the same.
        self._decode_all_but(1)

    def _decode_all_but(self, newest: int) -> None:
        while len(self._under_way) > newest:
            try:
                self._under_way.popleft()()
            except NonFiniteError as error:
                self._bad_steps.add(self._step, error)

    def _begin(self) -> None:
        self._missing = [len(piece.parts) for piece in self.pieces]
        if self.check_every and self._step % self.check_every == 0:
            check_no_drift(self.exchange.transport, self.parameters, self._step)
        every = self.error_every if isinstance(self.exchange.method, SGD) else 0
        self.exchange.measures = bool(every) and self._step % every == 0
        if self.exchange.measures:
            self.exchange.error = (0.0, 0.0)
        self.exchange.begin(self._step, float(self.optimizer.param_groups[0]["lr"]) if self.optimizer else 1.0)

    def _start(self, pieces: list[Piece]) -> Callable[[], None]:
        """Send what these pieces' gradients are compressed to; in return, what overwrites them with the estimates of
        their means.
        """
        scale = float(self.grad_scaler.get_scale()) if self.grad_scaler is not None else 1.0
        views = [[self._views[self.parameters[part.name]] for part in piece.parts] for piece in pieces]
        vectors = [self._joined(piece, own) for piece, own in zip(pieces, views, strict=True)]
        sent = [vector.cpu() if scale == 1.0 else vector.cpu() / scale for vector in vectors]
        running = self.exchange.start(pieces, [sent], overwrite=True)

        def write_back() -> None:
            estimates = running.finish()
            scaled = estimates if scale == 1.0 else [estimate * scale for estimate in estimates]
            self._write_back(pieces, views, vectors, scaled)

        return write_back

    def _joined(self, piece: Piece, views: list[Tensor]) -> Tensor:
        """The piece's gradients as one vector, each in the logical order of its entries, whatever its memory format:
        DDP's buffer itself where they lie in it in this order, else a copy.
        """
        if _one_behind_the_other(views):
            return views[0].as_strided((piece.numel,), (1,))
        if piece.name not in self._room:
            self._room[piece.name] = torch.empty(piece.numel, dtype=views[0].dtype, device=views[0].device)
        return torch.cat([view.reshape(-1) for view in views], out=self._room[piece.name])

    def _write_back(
        self, pieces: list[Piece], views: list[list[Tensor]], vectors: list[Tensor], estimates: list[Tensor]
    ) -> None:
        for piece, own, vector, estimate in zip(pieces, views, vectors, estimates, strict=True):
            if vector is self._room.get(piece.name):
                for view, part in zip(own, estimate.split(piece.sizes), strict=True):
                    view.copy_(part.view(view.shape))
            elif estimate.data_ptr() != vector.data_ptr():
                vector.copy_(estimate)

    def _finish(self) -> None:
        self._decode_all_but(0)
        for missing, piece in zip(self._missing, self.pieces, strict=True):
            if 0 < missing < len(piece.parts):  # a piece of which nothing came is one that no rank used
                names = ", ".join(part.name for part in piece.parts if self.parameters[part.name] not in self._views)
                raise ConfigError(
                    f"DDP did not hand over {names}, a part of {piece.name}, which is compressed as a whole: with "
                    'skip_all_reduce_unused_params=True write granularity="tensor"'
                )
        self.ledger.skipped_steps = self._bad_steps.count
        if self._bad_steps.newest:
            for load in self._loads:
                load.buffer.fill_(torch.inf)
        else:
            self.exchange.commit()
        self.ledger.steps += 1
        self._step += 1
        self._meter.end_step(reading([self.exchange], self._step, self._bad_steps.count))

    def state_dict(self) -> dict[str, Any]:
        """What this rank needs to go on: the step, and this rank's memory as worker and server, by parameter.

        Keys carry the rank, so that torch.distributed.checkpoint keeps those of all ranks side by side. Where one rank
        alone saves, `gathered_state_dict` is the form that holds all.
        """
        (member,) = self.exchange.members
        return {
            "step": self._step,
            "workers": member.workers,
            "order": "logical",
            "configuration": self.configuration(),
            f"rank{member.rank}": memory_of(self.exchange, self.parameters),
        }

    def gathered_state_dict(self) -> dict[str, Any]:
        """What all ranks need to go on, for scripts in which rank 0 alone saves; an empty dictionary on the others.

        Every rank must call this, outside of a backward pass. Every rank loads the whole of it.
        """
        first = dist.get_rank(self._group) == 0
        found: list[Any] = [None] * dist.get_world_size(self._group)
        dist.gather_object(
            self.state_dict(), found if first else None, dist.get_global_rank(self._group, 0), self._group
        )
        return {name: value for state in found if first for name, value in state.items()}

    def load_state_dict(self, state: dict[str, Any], *, strict: bool = True) -> None:
        """Go on from what `state_dict` or `gathered_state_dict` gave: bit for bit with the same number of ranks.

        With another number of ranks, a method without memory just goes on; one with memory starts it anew, and says so:
        what the old ranks' workers still owed is dropped. Raises `ConfigError` where the configuration was another, and
        where the same number of ranks saved, but not this one: with `strict=False` its memory starts anew as well.
        """
        then, now = state["configuration"], self.configuration()
        differing = [name for name in now if then.get(name) != now[name]]
        if differing:
            name = differing[0]
            raise ConfigError(
                f"the state was saved with {name}={then.get(name)!r}, and this handle has {name}={now[name]!r}"
            )
        (member,) = self.exchange.members
        alike = state["workers"] == member.workers
        own = state.get(f"rank{member.rank}") if alike else None
        why = f"the state of {state['workers']} ranks does not fit {member.workers}"
        if alike and own is None:
            held = ", ".join(sorted(name[4:] for name in state if name.startswith("rank")))
            why = (
                f"the state holds the memory of rank {held} alone, and this is rank {member.rank} of {member.workers}: "
                "save what handle.gathered_state_dict() returns, called on all ranks, or a file for every rank"
            )
        if own and "order" not in state and not all(p.is_contiguous() for p in self.parameters.values()):
            own, why = None, "the state was saved by an earlier version, in the order of memory, here channels_last"
        if own is None and any(memory_of(self.exchange, self.parameters).values()):
            anew = f"the memory of {self.exchange.method} starts anew"
            if alike and strict:
                raise ConfigError(f"{why}; with strict=False {anew}")
            warnings.warn(f"{why}: {anew}", TelegradWarning, stacklevel=2)
        load_memory(self.exchange, own or {})
        self._step = int(state["step"])
        self._bad_steps.begin()

    def remove(self) -> None:
        if self._hook.receiver != self._receive:
            return
        self._hook.receiver = None
        self._conveyor.close()
        if self._bad_steps.newest:  # no optimizer is told any more
            for parameter in self.parameters.values():
                parameter.grad = None
        self._bad_steps.close()
        self._wasted.close()
        leave(self._group)


def _one_behind_the_other(views: list[Tensor]) -> bool:
    """Whether these tensors lie in one storage, each in its logical order, with nothing in between.

    What is next to each other in memory may be of different storages.
    """
    storage, place = views[0].untyped_storage().data_ptr(), views[0].storage_offset()
    for view in views:
        if view.storage_offset() != place or not view.is_contiguous():
            return False
        if view.untyped_storage().data_ptr() != storage:
            return False
        place += view.numel()
    return True
