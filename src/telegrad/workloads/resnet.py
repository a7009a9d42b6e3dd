"""ResNet in the form that CIFAR-size images take: a 3 × 3 stem with stride 1 and no max-pooling.

K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016, with the four stages of its
ResNet-18. The BatchNorm layers are PyTorch's own. In training mode they update their running statistics in place, in
the very tensors that `torch.func.functional_call` is given, also under `torch.func.vmap` if these tensors are stacked
along the mapped dimension. A caller that may want the old statistics back hands over clones.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ResNet"]


class _Block(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut, which is a 1 × 1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.convolution1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.convolution2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut.append(nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.norm1(self.convolution1(x)))
        return functional.relu(self.norm2(self.convolution2(inner)) + self.shortcut(x))


class ResNet(nn.Module):
    """Images (n, 3, 32, 32) to logits (n, classes).

    Between them are four stages of `blocks` blocks with 1, 2, 4 and 8 times `width` channels.
    `ResNet(width=64, blocks=2)` is ResNet-18, with 11,173,962 parameters for 10 classes.
    """

    def __init__(self, width: int, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.stages = nn.Sequential()
        channels = width
        for stage in range(4):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                self.stages.append(_Block(channels, width << stage, stride))
                channels = width << stage
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(functional.relu(self.norm(self.stem(x))))
        return self.head(features.mean(dim=(2, 3)))
