"""A task made from a model, data and a loss of yours."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from telegrad.errors import InputError
from telegrad.random import Key
from telegrad.workloads.base import LoadedTask, Split
from telegrad.workloads.classification import accuracy

__all__ = ["OwnTask", "task"]

Data = Dataset[Any] | Split | tuple[Tensor, Tensor]


def task(
    model: nn.Module | Callable[[], nn.Module],
    train: Data,
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
    *,
    validation: Data | None = None,
    test: Data | None = None,
    metric: Literal["accuracy", "loss"] | None = None,
) -> OwnTask:
    """A `Task` for `telegrad.simulate` and the laboratory, from a model, data and a loss.

    Args:
        model: a module, which every run starts from as it is, or a function that makes one: its draws from torch's
            global generator are then those of the run's seed.
        train: a Dataset of (input, target) pairs of tensors of one shape, or two tensors with a row an example.
        loss: of the model's output and the targets, the mean over a batch, a 0-d tensor.
        validation: data like `train`; None: a tenth of `train` is held back.
        test: data like `train`; None: another tenth is held back.
        metric: "accuracy" (the default for integer targets) or "loss" (else).

    Returns:
        The task, for `tg.simulate(task, …)` in the place of a workload's spec.

    Raises:
        InputError: an argument is of another kind, or examples have different shapes.

    Example:
        >>> import torch, telegrad as tg
        >>> x = torch.randn(200, 3)
        >>> own = tg.task(torch.nn.Linear(3, 1), (x, x.sum(1, keepdim=True)), torch.nn.functional.mse_loss)
        >>> tg.simulate(own, "sgd(topk(k=2))", workers=2, steps=3, batch_size=8).ledger.steps
        3
    """
    if not isinstance(model, nn.Module) and (not callable(model) or _wants_arguments(model)):
        raise InputError(
            f"model={model!r}: a torch.nn.Module, or a function without arguments that makes one, is wanted"
        )
    every = _split(train, "train")
    held = [part for part, given in (("validation", validation), ("test", test)) if given is None]
    order = Key(0).fold(role="own-task").permutation(len(every))
    tenth = max(1, len(every) // 10)
    if len(every) <= tenth * len(held):
        raise InputError(f"{len(every)} examples are too few to hold back a tenth each for {' and '.join(held)}")
    parts = {part: every.rows(order[i * tenth : (i + 1) * tenth].sort().values) for i, part in enumerate(held)}
    rest = every.rows(order[len(held) * tenth :].sort().values) if held else every
    whole = {"validation": validation, "test": test}
    parts.update({part: _split(given, part) for part, given in whole.items() if given is not None})
    classes = not every.targets.is_floating_point() and every.targets.dim() == 1
    chosen = metric or ("accuracy" if classes else "loss")
    if chosen not in ("accuracy", "loss"):
        raise InputError(f"metric={metric!r}: accuracy or loss is allowed")
    kind = _Accurate if chosen == "accuracy" else OwnTask
    return kind(
        rest, parts["validation"], parts["test"], model, loss, int(every.targets.max()) + 1 if classes else None
    )


@dataclass(frozen=True, eq=False)
class OwnTask(LoadedTask):
    """What `task` makes: the metric is the loss, lower is better."""

    start: nn.Module | Callable[[], nn.Module]
    criterion: Callable[[Tensor, Tensor], Tensor]
    classes: int | None
    metric: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False

    def model(self, key: Key) -> nn.Module:
        """A copy of the module, or a new one, whose draws are those of `key`; torch's generator stays undisturbed."""
        if isinstance(self.start, nn.Module):
            return copy.deepcopy(self.start)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(key.fold(role="own-model").number() * 2**53))
            return self.start()

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of the model's output."""
        return self.criterion(model(inputs), targets)

    def augment(self, inputs: Tensor, key: Key) -> Tensor:
        """The batch as it is."""
        return inputs

    @torch.no_grad()
    def score(self, model: nn.Module, split: Split) -> float:
        """The mean loss over the split, in batches of 256; NaN for an empty one."""
        training = model.training
        model.eval()
        try:
            total = 0.0
            for inputs, targets in zip(split.inputs.split(256), split.targets.split(256), strict=True):
                total += float(self.loss(model, inputs, targets)) * len(inputs)
        finally:
            model.train(training)
        return total / len(split) if len(split) else float("nan")


class _Accurate(OwnTask):
    """What `task` makes for class numbers as targets."""

    metric = "accuracy"
    higher_is_better = True

    def score(self, model: nn.Module, split: Split) -> float:
        """Accuracy, a fraction in [0, 1]."""
        return accuracy(model, split, lambda inputs: inputs)


def _wants_arguments(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    empty, many = inspect.Parameter.empty, (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(one.default is empty and one.kind not in many for one in parameters)


def _split(data: Data, name: str) -> Split:
    if isinstance(data, Split):
        return data
    if isinstance(data, Tensor):
        raise InputError(f"{name} is one tensor: a Dataset of pairs, or two tensors with a row an example, is wanted")
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        pairs = data
    elif isinstance(data, Sized) and hasattr(data, "__getitem__") and len(data):
        pairs = _stacked([data[i] for i in range(len(data))], name)
    else:
        raise InputError(
            f"{name} is a {type(data).__name__}: a Dataset of (input, target) pairs, or two tensors with a row an "
            "example, is wanted"
        )
    if len(pairs[0]) != len(pairs[1]) or not len(pairs[0]):
        raise InputError(f"{name} has {len(pairs[0])} inputs and {len(pairs[1])} targets; equally many are wanted")
    return Split(*pairs)


def _stacked(examples: list[Any], name: str) -> tuple[Tensor, Tensor]:
    if any(not isinstance(one, (tuple, list)) or len(one) != 2 for one in examples):
        raise InputError(f"{name}[0] is {examples[0]!r}: a pair (input, target) is wanted")
    try:
        inputs, targets = (torch.stack([torch.as_tensor(one[part]) for one in examples]) for part in (0, 1))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: inputs and targets are wanted that make tensors of one shape: {error}") from None
    return inputs, targets
