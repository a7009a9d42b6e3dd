"""CIFAR-10 with a residual network: the workload in which most papers on gradient compression report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from telegrad.errors import DataError
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.workloads.base import LoadedTask, Split, Task, Workload
from telegrad.workloads.cifar10_files import find_cifar10
from telegrad.workloads.classification import accuracy
from telegrad.workloads.initialise import build_model
from telegrad.workloads.resnet import ResNet
from telegrad.workloads.splits import stratified

__all__ = ["Cifar10", "Cifar10Task"]

# Mean and standard deviation of the 50,000 training images, by channel (red, green, blue), of pixels in [0, 1].
_MEAN = (0.49140, 0.48216, 0.44653)
_DEVIATION = (0.24703, 0.24349, 0.26159)
_PADDING = 4


def normalise(inputs: Tensor) -> Tensor:
    """uint8 images (…, 3, 32, 32) as float32; over the training set each channel gets mean 0 and variance 1."""
    mean, deviation = (255 * inputs.new_tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (_MEAN, _DEVIATION))
    return (inputs.float() - mean) / deviation


@dataclass(frozen=True, eq=False)
class Cifar10Task(LoadedTask):
    """CIFAR-10 with its data: inputs (n, 3, 32, 32) uint8, targets (n,) int64 in 0 … 9.

    The images stay uint8, a quarter of the memory; `loss` and `score` normalise each batch.
    """

    width: int
    blocks: int
    classes: int = 10
    metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True

    def model(self, key: Key) -> nn.Module:
        """A `ResNet` whose BatchNorm layers have buffers, updated in place in training mode (see `resnet`)."""
        return build_model(lambda: ResNet(self.width, self.blocks, self.classes), key)

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of uint8 images."""
        return functional.cross_entropy(model(normalise(inputs)), targets)

    def augment(self, inputs: Tensor, key: Key) -> Tensor:
        """Each image moved by up to 4 pixels in both directions, black moving in, and mirrored with probability 1/2.

        The crop of 32 × 32 from the image padded by 4, and the flip, of He et al. (2016), section 4.2. uint8 in and
        out.
        """
        n, device = len(inputs), inputs.device
        padded = functional.pad(inputs, (_PADDING,) * 4)
        side = torch.arange(inputs.shape[-1], device=device)
        top, left = (key.fold(name=name).integers(n, 2 * _PADDING + 1).to(device) for name in ("top", "left"))
        mirrored = key.fold(name="mirror").integers(n, 2).bool().to(device)
        rows = top[:, None] + side
        columns = left[:, None] + torch.where(mirrored[:, None], side.flip(0), side)
        image = torch.arange(n, device=device)[:, None, None, None]
        channel = torch.arange(inputs.shape[1], device=device)[None, :, None, None]
        return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]

    def score(self, model: nn.Module, split: Split) -> float:
        """Accuracy, a fraction in [0, 1], in batches of 500."""
        return accuracy(model, split, normalise)


@register("cifar10", example="cifar10(width=16)", source="A. Krizhevsky, Learning Multiple Layers of Features, 2009")
@dataclass(frozen=True)
class Cifar10(Workload):
    """CIFAR-10 with ResNet-18 (`width=64, blocks=2`) or a narrower or shallower one for CPUs, such as `width=8`.

    `width` is the number of channels of the first stage, `blocks` the number of blocks in each of the four stages. Of
    the 50,000 training images, `validation_examples` are kept for validation and `train_examples` of the others train;
    `test_examples` of the 10,000 test images test. All parts are keyed and stratified by class; a smaller
    `train_examples` gives a shorter run on a part of what a larger one has, and only images in use are decoded.

    Args:
        width: channels of the first stage.
        blocks: of each of the four stages.
        train_examples: none: all that are left.
        validation_examples: kept back from training.
        test_examples: none: all 10,000.

    References:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
            https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
    """

    width: int = 64
    blocks: int = 2
    train_examples: int = 45_000
    validation_examples: int = 5_000
    test_examples: int = 10_000

    def __post_init__(self) -> None:
        for name in ("width", "blocks", "train_examples", "validation_examples", "test_examples"):
            check_that(getattr(self, name) >= 1, self, name, "an integer from 1 is allowed")
        together = self.train_examples + self.validation_examples
        check_that(together <= 50_000, self, "train_examples", "50,000 images are there, for validation_examples too")
        check_that(self.test_examples <= 10_000, self, "test_examples", "10,000 images are there")

    def load(self, data: Path | None, key: Key) -> Task:
        """Read from `data`, or fetch by name with the package `datasets` where `data` is None.

        The folder, or its subfolder `cifar10`, `cifar-10-batches-py` or `plain_text`, holds the parquet files of the
        Hugging Face data set uoft-cs/cifar10 or the official batches of the Python version. Raises `DataError` for
        missing, incomplete and damaged files.
        """
        train_images, test_images = find_cifar10(data)
        sizes = (self.validation_examples, self.train_examples)
        for what, wanted, there in (
            ("training", sum(sizes), len(train_images.labels)),
            ("test", self.test_examples, len(test_images.labels)),
        ):
            if wanted > there:
                raise DataError(
                    f"`{self}` asks for {wanted} {what} images, but {data} holds {there}; copy the whole data set, or "
                    "lower train_examples, validation_examples and test_examples"
                )
        validation, train = stratified(train_images.labels, sizes, key.fold(name="split"))
        (test,) = stratified(test_images.labels, (self.test_examples,), key.fold(name="test"))
        return Cifar10Task(
            train=Split(train_images.pixels(train), train_images.labels[train]),
            validation=Split(train_images.pixels(validation), train_images.labels[validation]),
            test=Split(test_images.pixels(test), test_images.labels[test]),
            width=self.width,
            blocks=self.blocks,
        )
