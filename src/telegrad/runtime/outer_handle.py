"""What an outer loop hands to the script that trains: account, global parameters, state, and its end."""

from __future__ import annotations

import contextlib
import copy
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, TelegradWarning
from telegrad.methods.outer_method import OuterMethod
from telegrad.random import Key
from telegrad.runtime.agreement import check_alike, leave
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.group_transport import GroupTransport, lost
from telegrad.runtime.handle import Handle as AnyHandle
from telegrad.runtime.handle import saved_configuration
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.memory import load_memory, memory_of
from telegrad.runtime.meter import Meter, Reading, reading
from telegrad.runtime.outer_loop import OuterLoop, forget_what_is_not_finite
from telegrad.runtime.pieces import Granularity
from telegrad.runtime.topologies import Topology

__all__ = ["Handle", "with_a_loop"]

T = TypeVar("T")

with_a_loop: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
"""The optimizers whose steps an outer loop counts: another one would count them again."""


class Handle(AnyHandle):
    """What `telegrad.outer.register` returns: the account, the global parameters and the state of an outer loop.

    `optimizer`: the outer torch optimizer, for a schedule of its learning rate. `method`: the outer method.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        method: OuterMethod,
        parameters: dict[str, nn.Parameter],
        group: dist.ProcessGroup,
        topology: str | Topology,
        downlink: str | Compressor | None,
        granularity: Granularity,
        seed: int,
    ) -> None:
        transport = GroupTransport(group)
        self.exchange = exchange_of(method.exchanged, topology, downlink, transport, Key(seed))
        self.method, self.granularity, self._group, self._inner = method, granularity, group, optimizers
        self._own = parameters
        self._error: Exception | None = None
        check_alike(transport, {**self.configuration(), "seed": seed})
        _spread(model, transport)
        self._loop = OuterLoop(method, self.exchange, [parameters], granularity, beside=True)
        self._meter = Meter(sum(8 * p.numel() * p.element_size() for p in parameters.values()))
        self._hook = optimizers[-1].register_step_post_hook(lambda *_: self._after_step())
        self._removed = False
        with_a_loop.add(optimizers[-1])

    @property
    def ledger(self) -> Ledger:
        """This rank's rows of the account: its `steps` are inner ones, its `skipped_steps` rounds."""
        return self.exchange.ledger

    @property
    def steps(self) -> int:
        """Inner steps so far."""
        return self._loop.step

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The outer torch optimizer, whose parameters are the global ones."""
        return self._loop.optimizer

    @property
    def global_parameters(self) -> dict[str, Tensor]:
        """The global parameters by name, alike on all ranks: what to evaluate and to publish. Not copies."""
        return {name: parameter.detach() for name, parameter in self._loop.parameters.items()}

    def gathered_ledger(self) -> Ledger:
        """The account of all ranks; every rank must call this. Waits for a fragment that travels."""
        if self._loop.travelling is not None:
            self._guarded(self._loop.travelling.result)
        return Ledger.merged(self.exchange.transport.objects(self.ledger))

    def configuration(self) -> dict[str, Any]:
        """What all ranks must agree on."""
        return {
            "method": str(self.method),
            "topology": str(self.exchange.topology),
            "downlink": str(self.exchange.downlink),
            "granularity": self.granularity,
            "parameters": [(name, tuple(p.shape), str(p.dtype)) for name, p in self._own.items()],
        }

    def synchronise(self) -> None:
        """Make a round of the whole model now, so that what was done since the last one counts: at the end of training,
        and before the model is published. All ranks then hold the global parameters. Every rank must call this.
        """
        self._renew(self._guarded(self._loop.synchronise))
        self._meter.end_step(self._reading())

    @contextlib.contextmanager
    def at_global_parameters(self) -> Iterator[None]:
        """Inside, the model holds the global parameters, for an evaluation; it takes room for the model once more."""
        kept = {name: parameter.detach().clone() for name, parameter in self._own.items()}
        self._loop.take(self._own)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._own.items():
                    parameter.copy_(kept[name])

    def state_dict(self) -> dict[str, Any]:
        """What this rank needs to go on beside its own model and inner optimizer, which it saves as well: the step, the
        global parameters, the outer optimizer, what travels, and this rank's error memory by parameter.

        All but the last is alike on all ranks: who joins later begins from any rank's. Keys carry the rank, so that
        torch.distributed.checkpoint keeps those of all ranks side by side. Waits for a fragment that travels.
        """
        (member,) = self.exchange.members
        return {
            **self._guarded(self._loop.save),
            "workers": member.workers,
            "configuration": self.configuration(),
            f"rank{member.rank}": memory_of(self.exchange, self._loop.parameters),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave: bit for bit where the same ranks, registered with the same seed, load it,
        and their own model's and inner optimizer's states.

        A rank that finds nothing of its own in `state`, because it was not there or there are more ranks or fewer now,
        begins at the global parameters, and its error memory anew, with a warning where it had one. Raises
        `ConfigError` where the configuration was another.
        """
        then, now = saved_configuration(state), self.configuration()
        for name in now:
            if then.get(name) != now[name]:
                raise ConfigError(
                    f"the state was saved with {name}={then.get(name)!r}, and this handle has {name}={now[name]!r}"
                )
        (member,) = self.exchange.members
        self._loop.load(state)
        self._meter.go_on_from(self._reading())
        own = state.get(f"rank{member.rank}") if state["workers"] == member.workers else None
        if own is not None:
            load_memory(self.exchange, own)
            return
        self._loop.take(self._own)
        load_memory(self.exchange, {})
        if any(memory_of(self.exchange, self._loop.parameters).values()):
            text = f"the state holds nothing of rank {member.rank} of {member.workers}: its error memory starts anew"
            warnings.warn(text, TelegradWarning, stacklevel=2)

    def remove(self) -> None:
        """Make no rounds any more; what travels still arrives. Every rank must call this, after the same step.

        Account, global parameters and state can still be read. A second call does nothing.
        """
        if self._removed:
            return
        self._removed = True
        self._hook.remove()
        with_a_loop.discard(self._inner[-1])
        try:
            if self._error is None:
                self._loop.arrive(self.method.alpha)
        finally:
            leave(self._group)

    def _after_step(self) -> None:
        self.ledger.steps += 1
        self._renew(self._guarded(self._loop.after_step))
        self._meter.end_step(self._reading())

    def _reading(self) -> Reading:
        return reading([self.exchange], self.steps, self.ledger.skipped_steps)

    def _guarded(self, compute: Callable[[], T]) -> T:
        """Whatever goes wrong in a round, the ranks are no longer in step: every later one raises it again."""
        if self._error is not None:
            raise copy.copy(self._error) from self._error
        try:
            return compute()
        except Exception as error:
            self._error = error
            raise

    def _renew(self, strays: list[int]) -> None:
        """Where this rank began again, forget what its inner optimizers hold that is not finite."""
        for optimizer in self._inner if strays else ():
            forget_what_is_not_finite(optimizer)


@torch.no_grad()
def _spread(model: nn.Module, transport: GroupTransport) -> None:
    """Give all ranks the parameters and buffers of rank 0, one tensor after another."""
    first = dist.get_global_rank(transport.group, 0) if transport.group is not None else 0
    for tensor in (*model.parameters(), *model.buffers()):
        sent = tensor.detach().to(transport.device, copy=True, memory_format=torch.contiguous_format)
        try:
            dist.broadcast(sent, first, group=transport.group)
        except RuntimeError as error:
            raise lost(error) from error
        tensor.copy_(sent)
