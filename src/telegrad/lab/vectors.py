"""Vectors to compress: named distributions, and tensors from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import DataError, SpecError
from telegrad.files import what_it_is
from telegrad.random import Key
from telegrad.wire.values import DTYPES

__all__ = ["DISTRIBUTIONS", "load_tensor", "quantile_vector"]


def _half_points(d: int) -> Tensor:
    return (torch.arange(1, d + 1, dtype=torch.float64) - 0.5) / d


def _student_t3(u: Tensor) -> Tensor:
    from scipy.special import stdtrit

    return torch.from_numpy(stdtrit(3.0, u.numpy()))


DISTRIBUTIONS: dict[str, Callable[[int], Tensor]] = {
    "gauss": lambda d: torch.special.ndtri((1 + _half_points(d)) / 2),
    "laplace": lambda d: -torch.log1p(-_half_points(d)),
    "t3": lambda d: _student_t3((1 + _half_points(d)) / 2),
    "lognormal": lambda d: torch.exp(2 * torch.special.ndtri(_half_points(d))),
    "expdecay": lambda d: torch.exp(-torch.arange(d, dtype=torch.float64) / 2000),
}
"""Magnitudes of d entries as quantiles (B14): |v|_j = F^−1((j − ½)/d), no random draw, so that figures repeat."""


def quantile_vector(name: str, d: int, key: Key) -> Tensor:
    """The named vector of d float32 entries, its signs and order drawn from `key`. Raises `SpecError` for an unknown
    name.
    """
    if name not in DISTRIBUTIONS:
        raise SpecError(f"unknown distribution {name!r}; valid: {', '.join(DISTRIBUTIONS)}")
    magnitude = DISTRIBUTIONS[name](d)
    signs = torch.where(key.fold(role="signs").uniform(d) < 0.5, -1.0, 1.0)
    return (magnitude * signs)[key.fold(role="order").permutation(d)].float()


def load_tensor(path: Path, name: str | None = None) -> Tensor:
    """The tensor in a .npy, .safetensors, .pt or .pth file, flat.

    Of several tensors the one called `name`, or without a name all floating-point ones, joined in the file's order. A
    checkpoint is read without running code of its own. Raises `DataError`.
    """
    readers = {".npy": _from_numpy, ".safetensors": _from_safetensors, ".pt": _from_torch, ".pth": _from_torch}
    if path.suffix not in readers:
        raise DataError(f"{path}: a file ending in {', '.join(readers)} is wanted")
    if not path.is_file():
        raise DataError(f"{path} is not there; give a .npy, .safetensors, .pt or .pth file")
    try:
        tensors = {key: _dense(tensor) for key, tensor in readers[path.suffix](path).items()}
    except DataError:
        raise
    except Exception as error:  # pickle, zip and safetensors raise kinds of their own
        raise DataError(f"cannot read {path}: {what_it_is(path, error)}") from None
    if name is not None:
        if name not in tensors:
            raise DataError(f"{path} has no tensor {name!r}; it has {', '.join(list(tensors)[:10]) or 'none'}")
        if not tensors[name].is_floating_point():
            raise DataError(f"{path}: {name} is of {tensors[name].dtype}; floating-point numbers are wanted")
        return tensors[name].reshape(-1)
    chosen = [tensor.reshape(-1) for tensor in tensors.values() if tensor.is_floating_point()]
    if not chosen:
        found = ", ".join(sorted({str(tensor.dtype) for tensor in tensors.values()})) or "nothing"
        raise DataError(f"{path} holds no floating-point tensor, only {found}")
    return torch.cat(chosen) if len(chosen) > 1 else chosen[0]


def _dense(tensor: Tensor) -> Tensor:
    """A tensor of a file as one that can be compressed: sparse and quantised ones written out, float8 as float32."""
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return tensor.float() if tensor.is_floating_point() and tensor.dtype not in DTYPES else tensor


def _from_numpy(path: Path) -> dict[str, Tensor]:
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an archive of several arrays; save the one that is wanted with numpy.save")
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    wide = native.astype(np.float64) if native.dtype == np.longdouble else native
    return {path.stem: torch.from_numpy(wide)}


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise DataError(f"{path}: reading .safetensors needs the package safetensors") from None
    return load_file(path)


def _from_torch(path: Path) -> dict[str, Tensor]:
    found = torch.load(path, map_location="cpu", weights_only=True)
    return {path.stem: found} if isinstance(found, Tensor) else dict(_tensors_in(found, ""))


def _tensors_in(node: object, prefix: str) -> list[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        return [(prefix, node)]
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    return [found for name, child in items for found in _tensors_in(child, f"{prefix}.{name}" if prefix else str(name))]
