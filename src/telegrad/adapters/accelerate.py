"""Hugging Face Accelerate: `telegrad.accelerate.attach(accelerator, spec)`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from telegrad.adapters.attach import attach_with, load_rank, save_rank
from telegrad.errors import InputError

try:
    from accelerate import Accelerator
    from accelerate.utils import DDPCommunicationHookType, DistributedDataParallelKwargs
except ImportError as error:
    raise ImportError("telegrad.accelerate needs Accelerate: pip install 'telegrad[accelerate]'") from error

__all__ = ["Attached", "attach"]


def attach(accelerator: Accelerator, spec: Any, model: Any = None, **options: Any) -> Attached:
    """Let the models that `accelerator` prepares exchange their gradients compressed.

    Call it before `accelerator.prepare(…)`; or after it, with the `model` that it returned.
    `accelerator.save_state` and `load_state` keep every rank's part of the exchange's state in a file of its own, so
    a resumed run goes on bit for bit. Gradient accumulation and mixed precision need nothing more.

    Args:
        accelerator: yours. In a job of one process nothing is compressed, and a warning says so.
        spec: a method or a compressor.
        model: a model that is prepared already, where there is one.
        options: those of `telegrad.ddp.register`. The learning rate that methods like ef14 put inside their memory is
            that of the first prepared optimizer, and the gradient scaler the accelerator's own, unless given.

    Returns:
        What holds the handle: `attached.handle`, `attached.metrics()`, `attached.log(step)`.

    Example:
        attached = telegrad.accelerate.attach(accelerator, "auto(bits=1)")
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    """
    if not isinstance(accelerator, Accelerator):
        raise InputError(f"an accelerate.Accelerator is wanted, not a {type(accelerator).__name__}")
    return Attached(accelerator, spec, options, model)


class Attached:
    """What `attach` returns: the handles of the models that one accelerator prepared."""

    def __init__(self, accelerator: Accelerator, spec: Any, options: dict[str, Any], model: Any = None) -> None:
        self.accelerator, self.spec, self.options = accelerator, spec, options
        self.handles: list[Any] = []
        self._seen: set[int] = set()
        accelerator.ddp_handler = _handler(self, accelerator.ddp_handler)
        accelerator.register_save_state_pre_hook(self._save)
        accelerator.register_load_state_pre_hook(self._load)
        self._follow_prepare()
        if model is not None or accelerator.num_processes == 1:
            self.take(model)  # with one process, this says that nothing is compressed

    @property
    def handle(self) -> Any:
        """The handle of the only prepared model; None in a job of one process."""
        if len(self.handles) > 1:
            raise InputError(f"{len(self.handles)} models were prepared; their handles are in .handles")
        return self.handles[0] if self.handles else None

    def take(self, model: Any) -> None:
        """Attach to a model that is wrapped already; one that was taken before is left as it is."""
        if id(model) in self._seen or (self.accelerator.num_processes == 1 and self._seen):
            return
        self._seen.add(id(model))
        known = {"optimizer": _FirstOptimizer(self.accelerator), "grad_scaler": self.accelerator.scaler}
        handle = attach_with(model, self.spec, self.options, known)
        if handle is not None:
            self.handles.append(handle)

    def metrics(self) -> dict[str, float]:
        """The last step's account, by the names that every adapter uses; empty in a job of one process."""
        return {} if self.handle is None else self.handle.metrics()

    def log(self, step: int | None = None) -> None:
        """Hand `metrics()` to the accelerator's trackers."""
        self.accelerator.log(self.metrics(), step=step)

    def _follow_prepare(self) -> None:
        """Take what Accelerate shards by FSDP2, for which it has no hook, as soon as `prepare` did it."""
        prepare = self.accelerator.prepare

        def prepare_and_take(*args: Any, **kwargs: Any) -> Any:
            prepared = prepare(*args, **kwargs)
            if self.accelerator.is_fsdp2:
                for model in self.accelerator._models:
                    self.take(model)
            return prepared

        setattr(self.accelerator, "prepare", prepare_and_take)  # noqa: B010

    def _save(self, models: Any, weights: Any, folder: str) -> None:
        if self.handle is not None:
            save_rank(self.handle, folder)

    def _load(self, models: Any, folder: str) -> None:
        if self.handle is not None:
            load_rank(self.handle, folder)


class _FirstOptimizer:
    """The learning rate of the first optimizer that an accelerator prepares, which may be after the model."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        prepared = self._accelerator._optimizers
        groups: list[dict[str, Any]] = prepared[0].param_groups if prepared else [{"lr": 1.0}]
        return groups


class _Handler(DistributedDataParallelKwargs):
    """Accelerate's settings of DDP, with telegrad as the communication hook.

    Accelerate compares `to_dict` with that of an instance without arguments to find what was set: it must hold DDP's
    settings and nothing else.
    """

    attached: Attached | None = None

    def to_dict(self) -> dict[str, Any]:
        hook = {"comm_hook", "comm_wrapper", "comm_state_option"}
        return {
            field.name: getattr(self, field.name)
            for field in fields(DistributedDataParallelKwargs)
            if field.name not in hook
        }

    def register_comm_hook(self, model: Any) -> None:
        if self.attached is not None:
            self.attached.take(model)


def _handler(attached: Attached, given: DistributedDataParallelKwargs | None) -> _Handler:
    """The settings given, with telegrad as the hook."""
    handler = _Handler()
    if given is not None:
        if isinstance(given, _Handler):
            raise InputError("telegrad is attached to this accelerator already; leave the second call out")
        if given.comm_hook != DDPCommunicationHookType.NO:
            raise InputError(
                f"the accelerator has comm_hook={given.comm_hook.value}, and a model can have one hook; leave it out"
            )
        handler.__dict__.update(given.__dict__)
    handler.attached = attached
    return handler
