"""The place in DDP where a model's gradients are handed over, and what DDP hands over there."""

# Annotations must be real types here: DDP looks at those of its hook.

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from telegrad.errors import ConfigError, InputError, TelegradWarning

__all__ = ["CommHook", "Load", "Receiver", "hook_of", "reduced_parameters"]


@dataclass(eq=False)
class Load:
    """A bucket of gradients: a flat buffer, which the estimates will overwrite, and its views by parameter.

    `future` is fulfilled with the buffer once the whole step is through, since only then it is known that no gradient
    of it was bad. `ready`: on a GPU, the event after which the buffer holds the gradients.
    """

    buffer: Tensor
    views: dict[Tensor, Tensor]
    last: bool
    future: torch.futures.Future[Tensor]
    ready: Any = None


Receiver = Callable[[Load], None]


class CommHook:
    """Hands a model's buckets to a receiver; without one, they are averaged as DDP does it.

    DDP takes one hook for a model's life, and so this stays where a handle goes. A copy of the model, or one that was
    saved as a whole, is a plain one: its hook has no receiver.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.receiver: Receiver | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return CommHook, ()

    def take(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """Promise the bucket's mean over ranks, or what the receiver makes of it."""
        if self.receiver is None:
            return allreduce_hook(self.group, bucket)  # type: ignore[arg-type]
        buffer = bucket.buffer()
        if buffer.layout != torch.strided:
            raise InputError("sparse gradients cannot be compressed; build the embedding with sparse=False")
        parameters = bucket.parameters()
        flat, views = buffer.split(list(map(Tensor.numel, parameters))), {}
        for parameter, own in zip(parameters, flat, strict=True):
            plain = parameter.is_contiguous()
            views[parameter] = own.view(parameter.shape) if plain else _as_laid_out(own, parameter)
        if buffer.is_cuda:
            future: torch.futures.Future[Tensor] = torch.futures.Future(devices=[buffer.device])
            ready = torch.cuda.current_stream(buffer.device).record_event()
        else:
            future, ready = torch.futures.Future(), None
        load = Load(buffer, views, bucket.is_last(), future, ready)
        self.receiver(load)
        return load.future


def _as_laid_out(flat: Tensor, parameter: Tensor) -> Tensor:
    """A bucket's entries of a parameter, in its shape: they lie in the order of its memory, as DDP puts them there."""
    return flat.as_strided(parameter.shape, parameter.stride()) if _dense(parameter) else flat.view(parameter.shape)


def _dense(tensor: Tensor) -> bool:
    """Whether the entries fill a stretch of memory, in whatever order."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order).is_contiguous()


def hook_of(model: DistributedDataParallel) -> CommHook:
    """The model's hook, put there where it has none. Raises `ConfigError` where another one is there, or ours in
    use.
    """
    for _, hook in model._comm_hooks:
        if not isinstance(hook, CommHook):
            raise ConfigError("this model has another communication hook already, and DDP takes one: wrap it anew")
        if hook.receiver is not None:
            raise ConfigError("this model's gradients are compressed already: remove() that handle first")
        if hook.group is not None:
            return hook
    model._comm_hooks = []  # that of a model this one was copied from
    hook = CommHook(model.process_group)
    model.register_comm_hook(hook, CommHook.take)
    return hook


def reduced_parameters(model: DistributedDataParallel) -> dict[str, nn.Parameter]:
    """The parameters that DDP averages, by name, in the model's order: those that required gradients when DDP was
    built and that it was not told to ignore. Warns of those that require gradients by now and are not among them.

    Raises `ConfigError` where DDP averages one that is no longer the model's.
    """
    if getattr(model, "reducer", None) is None:
        raise InputError("DDP averages none of this model's parameters in its backward pass: all of them are delayed")
    try:
        buckets = model.reducer._get_zeros_like_grad_buckets()
    except RuntimeError as error:  # a bucket that waits for a sparse gradient has no tensor
        if "undefined Tensor" in str(error):
            raise InputError("sparse gradients cannot be compressed; build the embedding with sparse=False") from None
        raise
    whole = next((name for name, parameter in model.module.named_parameters() if parameter.is_complex()), None)
    if whole is not None:
        raise InputError(
            f"{whole} is complex, and what is exchanged are real numbers: write torch.view_as_real for the parameter, "
            "and torch.view_as_complex in forward"
        )
    owned = {parameter for bucket in buckets for parameter in bucket.parameters()}
    named = {
        name.replace("_orig_mod.", ""): parameter  # torch.compile's wrapper is no part of a name
        for name, parameter in model.module.named_parameters()
    }
    lost = owned - set(named.values())
    if lost:
        shapes = ", ".join(sorted(str(tuple(parameter.shape)) for parameter in lost))
        raise ConfigError(
            f"DDP averages parameters that are no longer the model's, of shapes {shapes}: "
            "replace layers first, and build DistributedDataParallel then"
        )
    ignored = {name.replace("_orig_mod.", "") for name in model.parameters_to_ignore}
    local = [n for n, p in named.items() if p.requires_grad and p not in owned and n not in ignored]
    if local:
        warnings.warn(
            f"DDP does not average {', '.join(local)}, frozen when it was built: every rank trains its own. "
            "Unfreeze first, and build DistributedDataParallel then",
            TelegradWarning,
            stacklevel=4,
        )
    return {name: parameter for name, parameter in named.items() if parameter in owned}
