"""What to do with an input that is no dense tensor of floats: one line of advice for each kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn.parameter import is_lazy

from telegrad.errors import InputError
from telegrad.wire.values import DTYPES

__all__ = ["holds_its_numbers", "unfit"]

_NO_DISPATCH = Tensor.__torch_dispatch__


def holds_its_numbers(x: Tensor) -> bool:
    """Whether an instance of a subclass of Tensor has its numbers in its own memory, as a plain tensor has.

    Those that dispatch operations themselves wrap other tensors, or none; lazy parameters have no shape yet.
    """
    return type(x).__torch_dispatch__ is _NO_DISPATCH and not hasattr(x, "to_local") and not is_lazy(x)


def unfit(x: object) -> InputError:
    """The error for an input that cannot be compressed: what it is, what is allowed, and what to write instead."""
    what, remedy = _tensor(x) if isinstance(x, Tensor) else _no_tensor(x)
    allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
    return InputError(f"{what} cannot be compressed; allowed are dense tensors of {allowed}: {remedy}")


def _tensor(x: Tensor) -> tuple[str, str]:
    if hasattr(x, "to_local"):
        return f"a {type(x).__name__} spread over ranks", "write x.to_local() for this rank's share, or x.full_tensor()"
    if is_lazy(x):
        return f"an {type(x).__name__}, which has no shape yet,", "run the model once first, which gives it one"
    if x.is_nested:
        return "a nested tensor", "compress each of x.unbind(), or x.to_padded_tensor(0.0)"
    if x.layout is not torch.strided:
        return f"a tensor of layout {x.layout}", "write x.to_dense()"
    if x.is_meta:
        return "a tensor on the device meta, which holds no numbers,", "make one on a real device first"
    if x.is_complex():
        return f"a tensor of {x.dtype}", "write torch.view_as_real(x)"
    if x.is_quantized:
        return f"a quantised tensor of {x.dtype}", "write x.dequantize()"
    if x.dtype not in DTYPES:
        return f"a tensor of {x.dtype}", "write x.float()"
    if is_functorch_wrapped_tensor(x):
        return "a tensor inside torch.func.vmap or grad", "call it on what the transformed function returns"
    if hasattr(x, "trigger_wait"):
        return f"an {type(x).__name__}, which may not have come yet,", "write x.wait()"
    return f"a {type(x).__name__}, which wraps other tensors or none,", "write the plain tensor of its numbers"


def _no_tensor(x: object) -> tuple[str, str]:
    if isinstance(x, np.ndarray):
        return f"a numpy array of {x.dtype}", f"write {_from_numpy(x.dtype)}"
    if isinstance(x, list | tuple) and any(isinstance(part, Tensor) for part in x):
        return f"a {type(x).__name__} of tensors", "compress each, for example with encode_each(x, keys)"
    if isinstance(x, bool | int | float | list | tuple | np.generic):
        return f"a {type(x).__name__}", "write torch.tensor(x, dtype=torch.float32)"
    if hasattr(x, "__dlpack__"):
        return f"a {type(x).__name__}", "write torch.from_dlpack(x)"
    return f"a {type(x).__name__}", "write for example torch.tensor([1.0, -2.0])"


def _from_numpy(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "c":
        return "torch.view_as_real(torch.from_numpy(x))"
    taken = dtype.isnative and dtype in (np.float16, np.float32, np.float64)
    return "torch.from_numpy(x)" if taken else 'torch.from_numpy(x.astype("float32"))'
