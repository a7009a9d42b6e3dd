"""DistributedDataParallel in one line: `telegrad.ddp.register(model, "mlmc(stopk(s=0.01))")`."""

# Annotations must be real types here: DDP looks at those of its hook.

import contextlib
import warnings
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, InputError, TelegradWarning
from telegrad.methods.base import Method
from telegrad.random import Key
from telegrad.runtime.agreement import check_alike, leave, own_group
from telegrad.runtime.bucket_exchange import BucketExchange
from telegrad.runtime.choosing import Automatic, automatic
from telegrad.runtime.comm_hook import CommHook, Receiver, hook_of, reduced_parameters
from telegrad.runtime.exchange import Exchange, exchange_of
from telegrad.runtime.group_transport import GroupTransport
from telegrad.runtime.handle import Handle as AnyHandle
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.memory import load_memory, memory_of
from telegrad.runtime.meter import Meter, reading
from telegrad.runtime.pieces import Granularity, Piece, pieces_of
from telegrad.runtime.rate_advice import RateAdvice
from telegrad.runtime.shapes import granularity_for, warn_of_lost_shapes
from telegrad.runtime.topologies import Topology
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
        skips = getattr(model, "skip_all_reduce_unused_params", False)
        # What "auto" chooses keeps within its patience, and its choice says why.
        meter = Meter(sum(map(_bits, parameters.values())), RateAdvice.of(exchange) if rule is None else None)
        settings = (optimizer, grad_scaler, check_every, AnyHandle.error_every, skips)
        parts = (model, hook, group, BucketExchange(exchange, parameters, pieces, meter, *settings))
        handle = Handle(*parts) if rule is None else _automatic_handle(*parts, rule=rule, seed=seed)
        check_alike(transport, {**handle.configuration(), "seed": seed, "check_every": check_every})
    except BaseException:
        leave(group)
        raise
    hook.receiver = handle.receiver
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


def _bits(parameter: torch.Tensor) -> int:
    return 8 * parameter.numel() * parameter.element_size()


class Handle(AnyHandle):
    """What `register` returns: the account of a model's exchange (see `BucketExchange`), its state, and its end.

    `ledger`: this rank's rows of the account; `gathered_ledger()` adds up those of all ranks.
    """

    def __init__(
        self, model: DistributedDataParallel, hook: CommHook, group: dist.ProcessGroup, buckets: BucketExchange
    ) -> None:
        self._buckets, self._hook, self._group = buckets, hook, group
        self._meter = buckets.meter
        if dist.get_backend(group) == "gloo":  # NCCL's groups can only be left by all ranks at once
            weakref.finalize(self, leave, group).atexit = False
        self._model = weakref.ref(model)  # whose reducer keeps this handle alive

    def _joined(self, piece: Piece, views: list[torch.Tensor]) -> torch.Tensor:
        """The views as one vector, see `BucketExchange.joined`: reports of neighbouring buffers are tried by it."""
        return self._buckets.joined(piece, views)

    @property
    def exchange(self) -> Exchange:
        """The method along its topology, with its memory."""
        return self._buckets.exchange

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Those that are exchanged, by name."""
        return self._buckets.parameters

    @property
    def pieces(self) -> list[Piece]:
        """What one compressor call sees."""
        return self._buckets.pieces

    @property
    def error_every(self) -> int:
        """In every so many steps the error of this rank's own messages is measured, for `comm/omega`; 0: never."""
        return self._buckets.error_every

    @error_every.setter
    def error_every(self, steps: int) -> None:
        self._buckets.error_every = steps

    @property
    def ledger(self) -> Ledger:
        return self.exchange.ledger

    @property
    def steps(self) -> int:
        return self._buckets.step

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
        buckets = self._buckets
        before, buckets.left_out = buckets.left_out, True
        try:
            yield
        finally:
            buckets.left_out = before

    @property
    def receiver(self) -> Receiver:
        """What takes the buckets of a backward pass."""
        return self._buckets.take

    def state_dict(self) -> dict[str, Any]:
        """What this rank needs to go on: the step, and this rank's memory as worker and server, by parameter.

        Keys carry the rank, so that torch.distributed.checkpoint keeps those of all ranks side by side. Where one rank
        alone saves, `gathered_state_dict` is the form that holds all.
        """
        (member,) = self.exchange.members
        return {
            "step": self.steps,
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
        self._buckets.step = int(state["step"])
        self._buckets.bad_steps.begin()
        self._meter.go_on_from(reading([self.exchange], self.steps, self._buckets.bad_steps.count))

    def remove(self) -> None:
        if self._hook.receiver != self.receiver:
            return
        self._hook.receiver = None
        self._buckets.close()
        leave(self._group)
