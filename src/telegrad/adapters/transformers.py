"""The Transformers Trainer: `telegrad.transformers.Telegrad(spec).attach(trainer)`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from telegrad.adapters.attach import attach_with, load_rank, save_rank
from telegrad.errors import TelegradWarning

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint
except ImportError as error:
    raise ImportError("telegrad.transformers needs Transformers: pip install 'telegrad[transformers]'") from error

__all__ = ["Telegrad"]


class Telegrad(TrainerCallback):
    """Lets a Trainer's ranks exchange gradients compressed.

    Whether DDP or FSDP2 wraps the model. The account of the last step joins what the Trainer logs, as `comm/…`. Every
    rank writes its part of the exchange's state into the Trainer's checkpoints, and
    `trainer.train(resume_from_checkpoint=…)` goes on bit for bit.

    The Trainer clips gradients after the exchange, by max_grad_norm=1.0 unless told otherwise. A compressed gradient's
    norm is about √(1 + ω/M) times as large, so it is clipped more; set max_grad_norm accordingly.

    Args:
        spec: a method or a compressor.
        options: those of `telegrad.ddp.register`; the optimizer is the Trainer's own unless given.

    Example:
        trainer = Trainer(model, args, train_dataset=data)
        telegrad.transformers.Telegrad("auto(bits=1)").attach(trainer)
        trainer.train()
    """

    def __init__(self, spec: Any, **options: Any) -> None:
        self.spec, self.options = spec, options
        self.handle: Any = None
        self._trainer: Any = None
        self._resumed_from: str | None = None

    def attach(self, trainer: Trainer) -> Telegrad:
        """Take part in the training that `trainer.train()` will start."""
        self._trainer = trainer
        trainer.add_callback(self)
        train, log = trainer.train, trainer.log

        def train_from(resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
            self._resumed_from = _folder(resume_from_checkpoint, trainer.args)
            return train(resume_from_checkpoint, *args, **kwargs)

        def log_with(logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            log({**logs, **(self.handle.metrics() if self.handle is not None else {})}, *args, **kwargs)

        setattr(trainer, "train", train_from)  # noqa: B010
        setattr(trainer, "log", log_with)  # noqa: B010
        return self

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        known = {"optimizer": kwargs.get("optimizer"), "grad_scaler": self._trainer.accelerator.scaler}
        self.handle = attach_with(self._trainer.model_wrapped, self.spec, self.options, known)
        if self.handle is None:
            return
        if args.max_grad_norm and args.process_index == 0:
            warnings.warn(
                f"max_grad_norm={args.max_grad_norm} clips gradients after the exchange, whose norm is about "
                "√(1 + ω/M) times as large as without compression",
                TelegradWarning,
                stacklevel=2,
            )
        if self._resumed_from is not None:
            load_rank(self.handle, self._resumed_from)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.handle is not None:
            save_rank(self.handle, Path(str(args.output_dir), f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.handle is not None:
            self.handle.remove()


def _folder(resume: str | bool | None, args: TrainingArguments) -> str | None:
    """The checkpoint that a Trainer resumes from, as it finds it."""
    if resume is True:
        found: str | None = get_last_checkpoint(args.output_dir)
        return found
    return resume if isinstance(resume, str) else None
