"""What a DDP model's exchange hands to the script that trains: account, state, and its end."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from telegrad.errors import ConfigError, InputError, TelegradWarning
from telegrad.runtime.agreement import leave
from telegrad.runtime.bucket_exchange import BucketExchange
from telegrad.runtime.comm_hook import CommHook, Receiver
from telegrad.runtime.exchange import Exchange
from telegrad.runtime.handle import Handle as AnyHandle
from telegrad.runtime.handle import saved_configuration
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.memory import load_memory, memory_of
from telegrad.runtime.meter import reading
from telegrad.runtime.pieces import Piece
from telegrad.theory.diagnosis import Diagnosis, Loss, diagnose

__all__ = ["Handle"]


class Handle(AnyHandle):
    """What `telegrad.ddp.register` returns: the account of a model's exchange, its state, and its end.

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
        """Go on from what `state_dict` or `gathered_state_dict` gave: bit for bit with the same number of ranks and
        the same seed.

        With another number of ranks, a method without memory just goes on; one with memory starts it anew, and says so:
        what the old ranks' workers still owed is dropped. Raises `ConfigError` where the configuration was another, and
        where the same number of ranks saved, but not this one: with `strict=False` its memory starts anew as well.
        """
        then, now = saved_configuration(state), self.configuration()
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
