"""What workloads with class numbers as targets share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from telegrad.workloads.base import Split

__all__ = ["accuracy"]


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, prepare: Callable[[Tensor], Tensor], batch_size: int = 500) -> float:
    """The fraction of `split` whose largest logit is at the target, in [0, 1]; NaN for an empty split.

    `prepare` turns a batch of stored inputs into what the model reads. The model is put into eval mode and back, and
    the batches move to its device.
    """
    if len(split) == 0:
        return float("nan")
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        correct = 0
        for inputs, targets in zip(split.inputs.split(batch_size), split.targets.split(batch_size), strict=True):
            guess = model(prepare(inputs.to(device))).argmax(dim=1)
            correct += int((guess == targets.to(device)).sum())
    finally:
        model.train(training)
    return correct / len(split)
