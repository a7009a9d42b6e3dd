"""Local steps and a compressed outer loop in one line: `telegrad.outer.register(model, optimizer, "diloco")`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parameter import is_lazy

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, InputError, SpecError
from telegrad.methods.outer import Outer
from telegrad.methods.outer_method import OuterMethod
from telegrad.runtime.agreement import leave, own_group
from telegrad.runtime.misspelt import refuse_unknown
from telegrad.runtime.outer_handle import Handle, with_a_loop
from telegrad.runtime.pieces import Granularity
from telegrad.runtime.topologies import Topology
from telegrad.spec import build, registered

__all__ = ["Handle", "register"]


def register(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    spec: str | OuterMethod | Compressor,
    *,
    every: int | None = None,
    topology: str | Topology = "allgather",
    downlink: str | Compressor | None = None,
    granularity: Granularity = "tensor",
    process_group: dist.ProcessGroup | None = None,
    seed: int = 0,
    **unknown: Any,
) -> Handle:
    """Let every rank train by itself, and join what they have done every so many steps.

    All ranks must make the same call, once the optimizer exists. A hook on `optimizer.step()` counts the inner steps
    and makes the rounds; no DDP, and nothing else in the script changes. All ranks must make equally many steps.
    Parameters and buffers are rank 0's at first.

    A round in which a difference is not finite on some rank is skipped on all: it leaves no trace in any memory, is
    counted and warned of once; a rank whose parameters are not finite begins again at the global ones.

    Args:
        model: the rank's own, not wrapped.
        optimizer: the inner one, of any kind; a list of them where several make a step, in the order in which they are
            called.
        spec: an outer method such as "diloco" or "outer(mlmc(stopk(s=0.01)), fragments=4)"; a compressor C stands for
            outer(C).
        every: the inner steps between two rounds of a fragment; None: the spec's.
        topology: how messages travel: "allgather", "two_phase", "server", "hierarchical(node=8)".
        downlink: an unbiased compressor of what servers send; None: the topology's usual one.
        granularity: what one compressor call sees: each parameter ("tensor"), a "bucket", or a whole fragment
            ("model").
        process_group: whose ranks take part; None: all. A new group of the same ranks is made.
        seed: of every draw of the compressors.

    Returns:
        A handle: `ledger`, `metrics()`, `global_parameters`, `state_dict()`, `remove()` and more.

    Raises:
        ConfigError: there is no process group, ranks do not agree, with the difference, an argument is misspelt, or the
            optimizer has an outer loop already.
        SpecError: a spec is wrong, or its parts do not fit each other.
        InputError: a model or an optimizer of another kind.
        CommunicationError: a worker is lost; in a step, out of `optimizer.step()`, within the group's timeout.

    Example:
        optimizer = torch.optim.AdamW(model.parameters())
        handle = telegrad.outer.register(model, optimizer, "diloco", every=30)
        ...  # train as before
    """
    refuse_unknown(unknown, _ARGUMENTS, _IN_THE_SPEC)
    method = _method_of(spec)
    if every is not None:
        method = replace(method, every=every)
    if not (dist.is_available() and dist.is_initialized()):
        raise ConfigError(
            "no process group: start with `torchrun --nproc-per-node=4 …` and call torch.distributed.init_process_group"
        )
    parameters = _parameters_of(model)
    optimizers = list(optimizer) if isinstance(optimizer, Sequence) else [optimizer]
    _check_optimizers(optimizers, parameters)
    wanted = process_group or dist.group.WORLD
    assert wanted is not None  # there is one since torch.distributed is initialised
    group = own_group(wanted)
    try:
        return Handle(model, optimizers, method, parameters, group, topology, downlink, granularity, seed)
    except BaseException:
        leave(group)
        raise


_ARGUMENTS = list(inspect.signature(register).parameters)[:-1]
_IN_THE_SPEC = {
    name: f"it belongs to the spec, as in outer(randk(k=0.1), {example})"
    for name, example in {
        "fragments": "fragments=2",
        "delay": "delay=1",
        "alpha": "alpha=0.5",
        "feedback": "feedback=ef(decay=0.95)",
    }.items()
}


def _method_of(spec: str | OuterMethod | Compressor) -> OuterMethod:
    """The outer method that `spec` describes; a compressor stands for outer(compressor)."""
    if isinstance(spec, Compressor):
        return Outer(spec)
    if isinstance(spec, str) and spec.partition("(")[0].strip() in registered("compressor"):
        spec = f"outer({spec})"
    method = build(spec, "method")
    if not isinstance(method, OuterMethod):
        raise SpecError(
            f"{method} exchanges gradients in every step, which telegrad.ddp.register does; an outer method is wanted "
            "here, for example `diloco`, or a compressor"
        )
    return method


def _parameters_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained, by the model's own names, whatever wraps it."""
    if not isinstance(model, nn.Module):
        raise InputError(f"a {type(model).__name__} is no model: write telegrad.outer.register(model, optimizer, …)")
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            if hasattr(parameter, "full_tensor"):
                raise InputError(f"{name} is sharded over ranks: an outer loop wants the whole model on every rank")
            if is_lazy(parameter):
                raise InputError(f"{name} has no shape yet: run the model once before telegrad.outer.register")
            if parameter.is_meta or not parameter.is_floating_point():
                raise InputError(
                    f"{name} is of {parameter.dtype} on {parameter.device}: an outer loop wants parameters of floating "
                    "point on a real device"
                )
            found[name.replace("_orig_mod.", "").removeprefix("module.")] = parameter
    if not found:
        raise InputError(f"this {type(model).__name__} has no parameters to train")
    return found


def _check_optimizers(optimizers: Sequence[Any], parameters: dict[str, nn.Parameter]) -> None:
    for optimizer in optimizers:
        if not hasattr(optimizer, "register_step_post_hook"):
            raise InputError(
                f"a {type(optimizer).__name__} is no torch optimizer: "
                "write telegrad.outer.register(model, optimizer, …)"
            )
        if optimizer in with_a_loop:
            raise ConfigError("this optimizer has an outer loop already: call its handle.remove() first")
    own = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    if not own & {id(p) for p in parameters.values()}:
        raise InputError("the optimizer holds no parameter of this model: make it of model.parameters()")
