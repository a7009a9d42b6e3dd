"""Writers of `handle.metrics()` for the usual loggers: `log = telegrad.writers.tensorboard("runs/first")`, then
`log(handle, step)` in the loop.

Each loads its logger when it is called. Only rank 0 of a job writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch.distributed as dist

from telegrad.errors import ConfigError, InputError
from telegrad.runtime.handle import Handle

__all__ = ["Writer", "mlflow", "tensorboard", "wandb"]

Write = Callable[[dict[str, float], int], None]


@final
class Writer:
    """Hands a handle's figures to a logger: `writer(handle, step)`.

    Every rank may call it, as often as it likes: figures are means since the last call. Rank 0 writes, the others do
    nothing. A handle of None, as `telegrad.attach` returns in a job of one process, writes nothing.
    """

    def __init__(self, write: Write) -> None:
        self._write = write

    def __call__(self, handle: Handle | None, step: int) -> None:
        """Write what `handle.metrics()` says, at `step`."""
        if handle is None:
            return
        if not isinstance(handle, Handle):
            raise InputError(
                f"a handle is wanted, as telegrad.ddp.register or telegrad.attach returns it, not a "
                f"{type(handle).__name__}; for an adapter of a framework write {type(handle).__name__}.handle"
            )
        figures = handle.metrics()
        if figures and not (dist.is_available() and dist.is_initialized() and dist.get_rank() > 0):
            self._write(figures, step)


def tensorboard(where: Any) -> Writer:
    """A writer to TensorBoard.

    Args:
        where: a folder, or a `SummaryWriter` of yours.

    Raises:
        ImportError: TensorBoard is not installed.

    Example:
        log = telegrad.writers.tensorboard("runs/first")
    """
    if hasattr(where, "add_scalar"):
        return Writer(_scalars(lambda: where))
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise _missing("tensorboard", "TensorBoard", "tensorboard") from error

    made: list[Any] = []

    def opened() -> Any:  # by the rank that writes, and by no other
        if not made:
            made.append(SummaryWriter(str(where)))
        return made[0]

    return Writer(_scalars(opened))


def wandb(run: Any = None) -> Writer:
    """A writer to Weights & Biases.

    Args:
        run: what `wandb.init` returned; None: the run that is under way when something is written.

    Raises:
        ImportError: wandb is not installed.
        ConfigError: when something is written and no run is under way.
    """
    if run is not None:
        return Writer(lambda figures, step: run.log(figures, step=step))
    try:
        import wandb as module
    except ImportError as error:
        raise _missing("wandb", "Weights & Biases", "wandb") from error

    def write(figures: dict[str, float], step: int) -> None:
        if module.run is None:
            raise ConfigError("no run of wandb is under way: call wandb.init() first, on rank 0")
        module.run.log(figures, step=step)

    return Writer(write)


def mlflow(run_id: str | None = None) -> Writer:
    """A writer to MLflow.

    Args:
        run_id: of the run to write to; None: the active one.

    Raises:
        ImportError: MLflow is not installed.
    """
    try:
        import mlflow as module
    except ImportError as error:
        raise _missing("mlflow", "MLflow", "mlflow") from error
    return Writer(lambda figures, step: module.log_metrics(figures, step=step, run_id=run_id))


def _scalars(writer: Callable[[], Any]) -> Write:
    def write(figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            writer().add_scalar(name, value, step)

    return write


def _missing(name: str, title: str, package: str) -> ImportError:
    return ImportError(f"telegrad.writers.{name} needs {title}: pip install {package}")
