"""Lightning: `Trainer(callbacks=telegrad.lightning.Telegrad(spec))`."""

from __future__ import annotations

from typing import Any

from telegrad.adapters.attach import attach_with

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError("telegrad.lightning needs Lightning: pip install 'telegrad[lightning]'") from error

__all__ = ["Telegrad"]


class Telegrad(Callback):
    """Lets a Trainer's ranks exchange gradients compressed, with strategy="ddp" or FSDP2.

    The account of each step goes to the module's loggers as `comm/…`, every `log_every_n_steps`. The state of the
    exchange, of all ranks, is part of the Trainer's own checkpoints: a resumed run goes on bit for bit.

    Args:
        spec: a method or a compressor.
        options: those of `telegrad.ddp.register`; the optimizer is the Trainer's first one unless given.

    Example:
        trainer = Trainer(devices=2, strategy="ddp", callbacks=telegrad.lightning.Telegrad("auto(bits=1)"))
    """

    def __init__(self, spec: Any, **options: Any) -> None:
        self.spec, self.options = spec, options
        self.handle: Any = None
        self._saved: Any = None
        self._ended: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        known = {"optimizer": trainer.optimizers[0]} if trainer.optimizers else {}
        self.handle = attach_with(trainer.strategy.model, self.spec, self.options, known)
        if self.handle is not None and self._saved is not None:
            self.handle.load_state_dict(self._saved)
        self._saved = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        if self.handle is not None and trainer.global_step % trainer.log_every_n_steps == 0:
            for logger in trainer.loggers:
                logger.log_metrics(self.handle.metrics(), step=trainer.global_step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = self._gathered() if self.handle is not None else self._ended
        if state is not None:
            checkpoint["telegrad"] = state

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._saved = checkpoint.get("telegrad")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.handle is not None:
            self._ended = self._gathered()  # for what is saved after training
            self.handle.remove()
            self.handle = None

    def _gathered(self) -> Any:
        """The state of all ranks; FSDP2's is alike on all."""
        return getattr(self.handle, "gathered_state_dict", self.handle.state_dict)()
