"""Which form of a kernel runs: the loops of the CPU, or, for tensors on a GPU, what `telegrad.kernels.gpu` holds.

A front function marked `@with_gpu_form("module")` keeps its one name and meaning. Where its first argument lies on a
GPU, the function of the same name in `telegrad.kernels.gpu.<module>` answers; where Triton is missing the function
itself does, which copies what it needs to the CPU. Both give the same bytes.

Tensors that telegrad makes on its way lie on the CPU, or where its input lies. What a user enters through is marked
`@away_from_default_device`, so that `torch.set_default_device` changes nothing within.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.optional import optional

__all__ = ["away_from_default_device", "on_gpu", "with_gpu_form"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

everywhere = False
"""Tests set it: the forms for a GPU run for all tensors, under Triton's interpreter."""


def on_gpu(what: Tensor | torch.device | np.ndarray) -> bool:
    """Whether the forms for a GPU run for this tensor, or for tensors on this device."""
    there = what.is_cuda if isinstance(what, Tensor) else isinstance(what, torch.device) and what.type == "cuda"
    return (there or (everywhere and not isinstance(what, np.ndarray))) and _triton()


def with_gpu_form(module: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Mark a function as having a form of its name in `telegrad.kernels.gpu.<module>`; its first argument, a tensor or
    a device, tells where it runs.
    """

    def marked(on_cpu: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @wraps(on_cpu)
        def front(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
            first: Any = arguments[0]
            if (everywhere or getattr(first, "is_cuda", True)) and on_gpu(first):
                return _form(module, on_cpu.__name__)(*arguments, **named)
            return on_cpu(*arguments, **named)

        return front

    return marked


def away_from_default_device(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run a function as if no default device were set: new tensors lie on the CPU where nothing else is said."""

    @wraps(function)
    def front(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        if not _modes() or torch.empty(0).is_cpu:  # the quickest public way to ask
            return function(*arguments, **named)
        with torch.device("cpu"):
            return function(*arguments, **named)

    return front


# A default device is one of the modes that torch asks; without any there is none. Not public, and ten times as quick.
_modes: Callable[[], int] = getattr(torch._C, "_len_torch_function_stack", lambda: 1)


@cache
def _form(module: str, name: str) -> Any:
    return getattr(import_module(f"telegrad.kernels.gpu.{module}"), name)


@cache
def _triton() -> bool:
    return optional("triton", "tensors on a GPU are copied to the CPU, and encoded and decoded there") is not None
