"""Fully sharded models (FSDP2) in one line: `telegrad.fsdp.register(model, "mlmc(stopk(s=0.01))")`."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Variable
from torch.distributed.fsdp import FSDPModule

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, InputError, NonFiniteError, SpecError, TelegradWarning
from telegrad.methods.base import Method
from telegrad.methods.sgd import SGD
from telegrad.random import Key
from telegrad.runtime.exchange import Exchange, require_gradient_method
from telegrad.runtime.exchanged_gradients import BadSteps
from telegrad.runtime.group_transport import GroupTransport
from telegrad.runtime.handle import Handle as AnyHandle
from telegrad.runtime.ledger import Ledger
from telegrad.runtime.meter import Meter, Reading, reading
from telegrad.runtime.pieces import Part, Piece
from telegrad.runtime.rate_advice import RateAdvice
from telegrad.runtime.shapes import looks_at_shapes
from telegrad.runtime.topologies.scatter import Scatter
from telegrad.spec import build

__all__ = ["Handle", "register"]

# Their names in newer versions of torch, and in older ones.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def register(model: nn.Module, spec: str | Method | Compressor, *, seed: int = 0) -> Handle:
    """Let the sharded modules of an FSDP2 model reduce-scatter their gradients compressed, from now on.

    Each group of parameters is one vector; rank i receives everybody's message for shard i and keeps the mean.
    Parameters are still gathered as they are, which is in the account, and of hybrid sharding the all-reduce stays
    uncompressed, which is not. Every rank must make the same call, after `fully_shard` and before the first step.

    A step with a non-finite gradient on any rank leaves infinite gradients on all, and torch optimizers leave out that
    step, also within `step(closure)`.

    Args:
        model: `fully_shard` was called on it, or on modules of it.
        spec: an unbiased compressor, or sgd(…) of one.
        seed: of every draw of the compressor.

    Returns:
        A handle: `ledger`, `metrics()`, `state_dict()`, `remove()` and more.

    Raises:
        SpecError: the spec is wrong, or the compressor biased: it would need memory of what it owes.
        InputError: nothing is sharded.
        ConfigError: this torch cannot replace FSDP2's reduce-scatter.

    Example:
        fully_shard(model)
        handle = telegrad.fsdp.register(model, "mlmc(stopk(s=0.01))")
    """
    method = require_gradient_method(build(spec, "method"))
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
    if "last" in compressor.asks:
        raise SpecError(
            f"{compressor} wants the last estimate of all, and ranks of a sharded model have only their own"
        )
    sharded = {name or "root": module for name, module in model.named_modules() if isinstance(module, FSDPModule)}
    if not sharded:
        raise InputError("no module of this model is sharded: call torch.distributed.fsdp.fully_shard(model) first")
    if not hasattr(FSDPModule, "set_custom_reduce_scatter"):
        raise ConfigError(f"torch {torch.__version__} cannot replace FSDP2's reduce-scatter; a newer one can")
    if looks_at_shapes(compressor):
        warnings.warn(
            f"{compressor} looks at the shapes of tensors, and shards reach it as flat vectors, worse approximated",
            TelegradWarning,
            stacklevel=2,
        )
    return Handle(model, sharded, compressor, seed)


class Handle(AnyHandle):
    """What `register` returns: the account and the count of steps of a sharded model's compressed exchange.

    A step is a backward pass in which gradients are synchronised, whichever modules it uses. `calls`: how often each
    module's gradients were exchanged.
    """

    def __init__(self, model: nn.Module, sharded: dict[str, FSDPModule], compressor: Compressor, seed: int) -> None:
        self.model, self.method, self.key = model, SGD(compressor), Key(seed)
        self.exchanges: dict[dist.ProcessGroup, Exchange] = {}
        self.calls = dict.fromkeys(sharded, 0)
        self._step, self._backward, self._measures = 0, -1, False
        self._now: Counter[str] = Counter()
        self._gathered = self._scattered = 0
        self._bad_steps = BadSteps(lambda: set(model.parameters()))
        advice = RateAdvice(str(compressor), dist.get_world_size()) if dist.get_rank() == 0 else None
        self._meter = Meter(sum(8 * p.numel() * p.element_size() for p in model.parameters()), advice)
        self._comms = {name: (_ReduceScatter(self, name), _AllGather(self)) for name in sharded}
        for name, module in sharded.items():
            # FSDP2 asks for no more than two methods; its own base classes have no public place.
            module.set_custom_reduce_scatter(self._comms[name][0])  # type: ignore[arg-type]
            module.set_custom_all_gather(self._comms[name][1])  # type: ignore[arg-type]

    @property
    def steps(self) -> int:
        return self._step

    @property
    def ledger(self) -> Ledger:
        """This rank's row of the account, over all groups of parameters; rows are those of all ranks of the job."""
        rank = dist.get_rank()
        whole = Ledger(dist.get_world_size(), ranks=[rank])
        for exchange in self.exchanges.values():
            whole.add(exchange.ledger, {exchange.members[0].rank: rank})
        whole.parameters[rank] += self._gathered
        whole.sent[rank] += self._gathered
        whole.received[rank] += self._scattered
        whole.steps, whole.skipped_steps = self._step, self._bad_steps.count
        return whole

    @property
    def last_step(self) -> dict[str, float]:
        self._meter.end_step(self._reading())
        return super().last_step

    def metrics(self) -> dict[str, float]:
        self._meter.end_step(self._reading())  # what ended since the last step began
        return super().metrics()

    def _reading(self) -> Reading:
        return reading(self.exchanges.values(), self._step, self._bad_steps.count)

    def gathered_ledger(self) -> Ledger:
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, self.ledger)
        return Ledger.merged(found)

    def state_dict(self) -> dict[str, Any]:
        """The count of steps: with it, a resumed run draws on where it stopped. The same on all ranks."""
        return {"step": self._step, "compressor": str(self.method.compressor)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, with any number of ranks: there is no memory but the count of steps."""
        if state["compressor"] != str(self.method.compressor):
            raise ConfigError(
                f"the state was saved with {state['compressor']}, and this handle has {self.method.compressor}"
            )
        # Earlier versions counted by module.
        self._step = int(state["step"]) if "step" in state else max(state["calls"].values(), default=0)
        self._bad_steps.begin()
        self._meter.go_on_from(self._reading())

    def remove(self) -> None:
        for comms in self._comms.values():
            for comm in comms:
                comm.handle = None
        if self._bad_steps.newest:  # no optimizer is told any more
            for parameter in self.model.parameters():
                parameter.grad = None
        self._bad_steps.close()

    def reduce_scatter(self, name: str, vector: Tensor, group: dist.ProcessGroup) -> Tensor | None:
        """The mean over ranks of this rank's shard of `vector`; None where a gradient was not finite."""
        exchange = self.exchanges.get(group)
        if exchange is None:
            exchange = Exchange(self.method, Scatter(), self.method.compressor, GroupTransport(group), self.key)
            self.exchanges[group] = exchange
        self._enter_step()
        self._now[name] += 1
        self.calls[name] += 1
        exchange.measures = self._measures
        exchange.begin(self._step - 1, 1.0)
        # A module that is used twice may be reduced twice in a step: with draws of its own each time.
        label = name if self._now[name] == 1 else f"{name}#{self._now[name]}"
        try:
            (own,) = exchange.run([Piece(label, (Part(name, 0, len(vector)),))], [[exchange.placed(vector)]])
        except NonFiniteError as error:
            if not self._bad_steps.newest:
                Variable._execution_engine.queue_callback(self._after_backward)
            self._bad_steps.add(self._step - 1, error)
            return None
        return own

    def _after_backward(self) -> None:
        # Some modules' gradients come in callbacks like this one, queued later: again to the end of the queue.
        Variable._execution_engine.queue_callback(lambda: self._bad_steps.mark(self.model.parameters()))

    def _enter_step(self) -> None:
        """A step begins with the first exchange of a backward pass."""
        backward = torch._C._current_graph_task_id()
        if backward != self._backward or backward == -1:
            if self._step:
                self._meter.end_step(self._reading())
            self._backward, self._step = backward, self._step + 1
            self._measures = bool(self.error_every) and (self._step - 1) % self.error_every == 0
            for exchange in self.exchanges.values() if self._measures else ():
                exchange.error = (0.0, 0.0)
            self._now.clear()
            self._bad_steps.begin()

    def book_all_gather(self, nbytes: int, workers: int) -> None:
        """Book that this rank handed `nbytes` of parameters to all others, and each of them as many to it."""
        self._gathered += 8 * nbytes * (workers - 1)
        self._scattered += 8 * nbytes * (workers - 1)


class _Comm:
    """What FSDP2 calls in place of a collective; without a handle it is that collective."""

    def __init__(self, handle: Handle | None) -> None:
        self.handle = handle

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _ReduceScatter(_Comm):
    """The reduce-scatter of one group of parameters' gradients, compressed."""

    def __init__(self, handle: Handle, name: str) -> None:
        super().__init__(handle)
        self.name = name

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: Any, async_op: bool = False
    ) -> Any:
        if self.handle is None:
            return _reduce_scatter(output_tensor, input_tensor, op=op, group=group, async_op=async_op)
        averaged, summed = op == dist.ReduceOp.AVG, op == dist.ReduceOp.SUM
        if not (averaged or summed):
            raise ConfigError(
                "a gradient divide factor of its own makes FSDP2 reduce by a weighted sum; means and sums can be "
                "compressed: call model.set_force_sum_reduction_for_comms(True), or leave the factor alone"
            )
        own = self.handle.reduce_scatter(self.name, input_tensor.view(-1), group)
        if own is None:
            output_tensor.fill_(torch.inf)
        else:
            output_tensor.copy_(own if averaged else own * group.size())
        return None


class _AllGather(_Comm):
    """The all-gather of one group of parameters, as it is, and booked."""

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, async_op: bool = False
    ) -> Any:
        if self.handle is not None:
            self.handle.book_all_gather(input_tensor.nbytes, group.size())
        return _all_gather(output_tensor, input_tensor, group=group, async_op=async_op)
