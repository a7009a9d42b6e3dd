"""The contract of a workload: a model, its data, its loss and its metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from telegrad.random import Key
from telegrad.spec import Registered

__all__ = ["LoadedTask", "Split", "Task", "Workload"]


@dataclass(frozen=True)
class Split:
    """Examples: `inputs` of shape (n, …) and `targets` of shape (n, …), row by row.

    `lengths` (integers, shape (n,)) where examples are sequences of unlike length, padded to the longest: batches are
    then made of examples of like length, which a task may cut to the longest of the batch.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"{len(self.inputs)} inputs but {len(self.targets)} targets")
        if self.lengths is not None and len(self.lengths) != len(self.inputs):
            raise ValueError(f"{len(self.inputs)} inputs but {len(self.lengths)} lengths")

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, index: Tensor) -> Split:
        """The examples at `index` (int64, shape (k,))."""
        lengths = None if self.lengths is None else self.lengths[index]
        return Split(self.inputs[index], self.targets[index], lengths)


class Task(ABC):
    """A workload with its data loaded. All methods are pure functions of their arguments and of `model`'s parameters.

    Attributes: `train`, `validation`, `test` (splits; validation never overlaps train or test), `metric` (the name of
    the metric), `higher_is_better`, `classes` (the number of classes where targets are class numbers; None otherwise).
    """

    train: Split
    validation: Split
    test: Split
    metric: ClassVar[str]
    higher_is_better: ClassVar[bool]
    classes: int | None

    @abstractmethod
    def model(self, key: Key) -> nn.Module:
        """A new model with parameters drawn from `key`, on the CPU, float32 unless the task says otherwise."""

    @abstractmethod
    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over the batch, a 0-d tensor. Must work under torch.func.functional_call, and under vmap, or
        raise RuntimeError there: then workers are computed one after another.
        """

    @abstractmethod
    def augment(self, inputs: Tensor, key: Key) -> Tensor:
        """A training batch after random augmentation (the identity where there is none). Shape unchanged."""

    @abstractmethod
    def score(self, model: nn.Module, split: Split) -> float:
        """The metric of `model` on `split`, computed in eval mode without gradients."""


@dataclass(frozen=True, eq=False)
class LoadedTask(Task):
    """A task whose splits are held in memory; what else it holds, and what it computes, its subclass says."""

    train: Split
    validation: Split
    test: Split


class Workload(Registered, ABC):
    """A named workload with its configuration: `digits`, `cifar10(width=16)`, …"""

    kind: ClassVar[str] = "workload"

    @abstractmethod
    def load(self, data: Path | None, key: Key) -> Task:
        """Read the data (from the folder `data`, where this workload needs one) and split it.

        `key` decides every random split. Raises `DataError` that says which files were looked for and where to get
        them.
        """
