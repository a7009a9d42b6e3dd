"""Models built from a key.

`torch.nn` layers draw their first parameters from torch's global generator. Here they are laid out on the "meta"
device, where nothing is drawn, and then filled from streams of a key, one stream a parameter, named after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from telegrad.random import Key

__all__ = ["build_model"]

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
_EMBEDDING_DEVIATION = 0.02


def build_model(layout: Callable[[], nn.Module], key: Key) -> nn.Module:
    """The module that `layout` builds, on the CPU, with parameters drawn from `key`; torch's generators stay untouched.

    - Convolutions: normal with variance 2 / fan-in, since a ReLU follows and halves the second moment (He et al.,
      "Delving deep into rectifiers", ICCV 2015, eq. 10).
    - Linear layers: normal with variance 1 / fan-in, since no ReLU follows that would halve the second moment.
    - Embeddings: normal with deviation .02, as the first transformers for text had them.
    - Normalisations: weight 1, bias 0, running mean 0, running variance 1. All other biases: 0.

    Raises `TypeError` for a layer with parameters or buffers of any other kind.
    """
    with torch.device("meta"):
        model = layout()
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, module in model.named_modules():
            _fill(module, name, key)
    return model


def _fill(module: nn.Module, name: str, key: Key) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        weight = module.weight
        gain = 2.0 if isinstance(module, nn.Conv2d) else 1.0
        fan_in = weight[0].numel()
        values = key.fold(name=f"{name}.weight").normal(weight.numel()).mul_(math.sqrt(gain / fan_in))
        weight.copy_(values.view_as(weight))
        if module.bias is not None:
            module.bias.zero_()
    elif isinstance(module, nn.Embedding):
        values = key.fold(name=f"{name}.weight").normal(module.weight.numel()).mul_(_EMBEDDING_DEVIATION)
        module.weight.copy_(values.view_as(module.weight))
    elif isinstance(module, _NORMS):
        # For norms this is deterministic: it sets constants and resets the running statistics.
        module.reset_parameters()
    elif any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False)):
        raise TypeError(f"build_model has no rule for the {type(module).__name__} {name!r}; add one to initialise.py")
