"""DistributedDataParallel in one line: `telegrad.ddp.register(model, "mlmc(stopk(s=0.01))")`."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from telegrad.compressors.base import Compressor
from telegrad.errors import ConfigError, InputError
from telegrad.methods.base import Method
from telegrad.random import Key
from telegrad.runtime.agreement import check_alike, leave, own_group
from telegrad.runtime.automatic import AutomaticHandle
from telegrad.runtime.bucket_exchange import BucketExchange
from telegrad.runtime.choosing import Automatic, automatic
from telegrad.runtime.comm_hook import hook_of, reduced_parameters
from telegrad.runtime.ddp_handle import Handle
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.group_transport import GroupTransport
from telegrad.runtime.handle import Handle as AnyHandle
from telegrad.runtime.meter import Meter
from telegrad.runtime.misspelt import refuse_unknown
from telegrad.runtime.pieces import Granularity, pieces_of
from telegrad.runtime.rate_advice import RateAdvice
from telegrad.runtime.shapes import granularity_for, warn_of_lost_shapes
from telegrad.runtime.topologies import Topology
from telegrad.spec import build

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
    **unknown: Any,
) -> Handle:
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
        ConfigError: ranks do not agree, with the difference, the model has a communication hook already, or an
            argument is misspelt.
        SpecError: a spec is wrong, or its parts do not fit each other.
        InputError: `model` is no `DistributedDataParallel` of real parameters, or an option of another kind.
        CommunicationError: a worker is lost; in a step, out of `backward`, within the group's timeout.

    Example:
        model = DistributedDataParallel(model)
        handle = telegrad.ddp.register(model, "auto(bits=1)")
        ...  # train as before
        print(handle.ledger.bits_up_per_worker)
    """
    refuse_unknown(unknown, _ARGUMENTS)
    _check_options(optimizer, grad_scaler, check_every)
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
        handle = Handle(*parts) if rule is None else AutomaticHandle(*parts, rule=rule, seed=seed)
        check_alike(transport, {**handle.configuration(), "seed": seed, "check_every": check_every})
    except BaseException:
        leave(group)
        raise
    hook.receiver = handle.receiver
    return handle


def _check_options(optimizer: Any, grad_scaler: Any, check_every: Any) -> None:
    """Raise `InputError` here for what a backward pass would stumble over."""
    if not hasattr(optimizer, "param_groups") and optimizer is not None:
        raise InputError(f"optimizer={optimizer!r}: a torch optimizer is allowed, or None; a spec cannot name it")
    if not hasattr(grad_scaler, "get_scale") and grad_scaler is not None:
        raise InputError(f"grad_scaler={grad_scaler!r}: a torch.amp.GradScaler is allowed, or None")
    if type(check_every) is not int or check_every < 0:
        raise InputError(f"check_every={check_every!r}: a number of steps is allowed, or 0 for never")


_ARGUMENTS = list(inspect.signature(register).parameters)[:-1]


def _check_free_to_choose(
    model: DistributedDataParallel, rule: Automatic, topology: str | Topology, downlink: str | Compressor | None
) -> None:
    if str(topology) != "allgather" or downlink is not None:
        raise ConfigError(f"{rule} chooses how messages travel: leave out topology and downlink")
    if getattr(model, "skip_all_reduce_unused_params", False):
        raise ConfigError(f"{rule} needs all buckets in every step: leave out skip_all_reduce_unused_params, or {rule}")


def _bits(parameter: torch.Tensor) -> int:
    return 8 * parameter.numel() * parameter.element_size()
