"""Fully sharded models (FSDP2) in one line: `telegrad.fsdp.register(model, "mlmc(stopk(s=0.01))")`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, InputError, NonFiniteError, SpecError
from telegrad.methods.base import Method
from telegrad.methods.sgd import SGD
from telegrad.random import Key
from telegrad.runtime.bad_steps import BadSteps
from telegrad.runtime.exchange import Exchange, method_of, require_gradient_method
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.pieces import Part, Piece
from telegrad.runtime.topologies.scatter import Scatter
from telegrad.runtime.transport import GroupTransport

__all__ = ["Handle", "register"]


def register(model: nn.Module, spec: str | Method | Compressor, *, seed: int = 0) -> Handle:
    """Let every `fully_shard`ed module in `model` reduce-scatter its gradients compressed, from now on.

    `spec`: an unbiased compressor, or sgd(…) of one. Each group of parameters is one vector; rank i receives
    everybody's message for shard i and keeps the mean. Parameters are still gathered as they are, and of hybrid
    sharding the all-reduce stays uncompressed. Every rank must make the same call, after `fully_shard` and before the
    first step.

    A step with a non-finite gradient on any rank leaves infinite gradients on all, and torch optimizers leave out that
    step. Raises `SpecError` for a biased compressor, which would need memory of what it owes, and `InputError` where
    nothing is sharded.
    """
    method = require_gradient_method(method_of(spec))
    if not isinstance(method, SGD):
        raise SpecError(
            f"{method} remembers what it sent, and a sharded model keeps no memory; write an unbiased compressor, for "
            "example mlmc(stopk(s=0.01))"
        )
    compressor = method.compressor
    if not compressor.unbiased:
        raise SpecError(
            f"{compressor} is biased, and a sharded model keeps no error memory; write for example "
            "mlmc(stopk(s=0.01)) or importance(k=0.01)"
        )
    if compressor.wants_last:
        raise SpecError(
            f"{compressor} wants the last estimate of all, and ranks of a sharded model have only their own"
        )
    sharded = [(name, module) for name, module in model.named_modules() if isinstance(module, FSDPModule)]
    if not sharded:
        raise InputError("no module of this model is sharded: call torch.distributed.fsdp.fully_shard(model) first")
    if not hasattr(FSDPModule, "set_custom_reduce_scatter"):
        raise ConfigError(f"torch {torch.__version__} cannot replace FSDP2's reduce-scatter; a newer one can")
    handle = Handle(model, compressor, seed)
    for name, module in sharded:
        # FSDP2 asks for no more than these two methods; its own base class has no public place.
        module.set_custom_reduce_scatter(_CompressedReduceScatter(handle, name or "root"))  # type: ignore[arg-type]
    return handle


class Handle:
    """What `register` returns: the account and the count of steps of a sharded model's compressed exchange."""

    def __init__(self, model: nn.Module, compressor: Compressor, seed: int) -> None:
        self.model, self.method, self.key = model, SGD(compressor), Key(seed)
        self.exchanges: dict[int, Exchange] = {}
        self.calls: dict[str, int] = {}
        self._bad_steps = BadSteps(lambda: set(self.model.parameters()), lambda: self.steps - 1)

    @property
    def steps(self) -> int:
        """Steps so far, skipped ones included."""
        return max(self.calls.values(), default=0)

    @property
    def ledger(self) -> Ledger:
        """This rank's rows of the account, over all groups of parameters."""
        begun = [exchange.ledger for exchange in self.exchanges.values()]
        ledger = Ledger.merged(begun or [Ledger(dist.get_world_size())])
        ledger.steps, ledger.skipped_steps = self.steps, self._bad_steps.count
        return ledger

    def state_dict(self) -> dict[str, Any]:
        """How often each group was exchanged: with it, a resumed run draws on where it stopped."""
        return {"calls": dict(self.calls), "compressor": str(self.method.compressor)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, with any number of ranks: there is no memory but the count of steps."""
        if state["compressor"] != str(self.method.compressor):
            raise ConfigError(
                f"the state was saved with {state['compressor']}, and this handle has {self.method.compressor}"
            )
        self.calls = dict(state["calls"])
        self._bad_steps.forget()

    def reduce_scatter(self, name: str, vector: Tensor, group: dist.ProcessGroup) -> Tensor | None:
        """The mean over ranks of this rank's shard of `vector`; None where a gradient was not finite."""
        exchange = self.exchanges.get(id(group))
        if exchange is None:
            exchange = Exchange(self.method, Scatter(), self.method.compressor, GroupTransport(group), self.key)
            self.exchanges[id(group)] = exchange
        step = self.calls.get(name, 0)
        self.calls[name] = step + 1
        exchange.begin(step, 1.0)
        try:
            (own,) = exchange.run([Piece(name, (Part(name, 0, len(vector)),))], [[vector.cpu()]])
        except NonFiniteError as error:
            self._bad_steps.add(step, error)
            return None
        return own


class _CompressedReduceScatter:
    """What FSDP2 calls in place of the reduce-scatter of one group of parameters."""

    def __init__(self, handle: Handle, name: str) -> None:
        self.handle, self.name = handle, name

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: Any, async_op: bool = False
    ) -> None:
        averaged, summed = op == dist.ReduceOp.AVG, op == dist.ReduceOp.SUM
        if not (averaged or summed):
            raise ConfigError(
                f"reduction by {op}: mean and sum can be compressed; leave the gradient divide factor alone"
            )
        own = self.handle.reduce_scatter(self.name, input_tensor.view(-1), group)
        if own is None:
            output_tensor.fill_(torch.inf)
        else:
            output_tensor.copy_(own if averaged else own * group.size())
