"""Updates of a federated client as telegrams, whatever carries them: named arrays in, bytes out, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from telegrad.compressors.base import Compressor
from telegrad.errors import InputError, WireError
from telegrad.random import Key
from telegrad.wire.message import pack, unpack

__all__ = ["Arrays", "Layout", "Update", "apply_update", "compress_update", "layout_of"]

Arrays = Mapping[str, np.ndarray]
Layout = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, dtype and shape of every array, in order."""

_FLOATS = ("float32", "float64", "float16")


@dataclass(frozen=True)
class Update:
    """What travels: `telegram`, one packed message over all floating-point arrays, flat and in order; `plain`, the
    arrays of other dtypes as they are.
    """

    telegram: bytes
    plain: dict[str, np.ndarray]


def layout_of(arrays: Arrays) -> Layout:
    """The layout of these arrays."""
    return tuple((name, str(array.dtype), tuple(array.shape)) for name, array in arrays.items())


def pack_layout(layout: Layout) -> bytes:
    """A layout as bytes, for a receiver that knows no model yet."""
    return json.dumps(layout, separators=(",", ":")).encode()


def read_layout(data: bytes) -> Layout:
    """The layout of bytes that `pack_layout` made. Raises `WireError` on any others."""
    try:
        layout = tuple((str(name), str(dtype), tuple(map(int, shape))) for name, dtype, shape in json.loads(data))
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError(f"not a layout of arrays: {error}") from None
    if any(size < 0 for _, _, shape in layout for size in shape) or len({name for name, _, _ in layout}) < len(layout):
        raise WireError("a layout of arrays with a negative size or a name twice")
    return layout


def compress_update(
    compressor: Compressor, before: Arrays, after: Arrays, key: Key, memory: np.ndarray | None = None
) -> tuple[Update, np.ndarray | None]:
    """C(after − before + memory), and what C left out, the next `memory`: none for an unbiased compressor.

    Raises `InputError` where the two do not have the same layout, `NonFiniteError` where the update is not finite.
    """
    if layout_of(before) != layout_of(after):
        raise InputError(
            "the arrays after training differ in name, dtype or shape from those before: "
            f"{_first_difference(layout_of(before), layout_of(after))}"
        )
    change = _flat(after) - _flat(before)
    owes = memory is not None and not compressor.unbiased
    if owes:
        if memory.shape != change.shape:  # type: ignore[union-attr]
            raise InputError(f"the memory has {memory.shape} entries and the update {change.shape}")  # type: ignore[union-attr]
        change = change + memory
    code = compressor.encode(torch.from_numpy(change), key)
    left = None if compressor.unbiased else change - code.decode().numpy()
    return Update(pack(code), {name: a for name, a in after.items() if str(a.dtype) not in _FLOATS}), left


def apply_update(before: Arrays, update: Update) -> dict[str, np.ndarray]:
    """The arrays `before`, plus the update. Raises `WireError` where the update does not fit them, or is not finite."""
    flat = _flat(before)
    code = unpack(update.telegram, flat.size)
    if str(code.dtype) != f"torch.{flat.dtype}":
        raise WireError(
            f"the telegram has entries of {str(code.dtype).removeprefix('torch.')}, and the model of {flat.dtype}"
        )
    out = flat.copy()
    code.add_to(torch.from_numpy(out))
    if not np.isfinite(out).all():
        raise WireError("the update makes an entry of the model NaN or infinite")
    arrays, at = {}, 0
    for name, array in before.items():
        if str(array.dtype) in _FLOATS:
            arrays[name] = out[at : at + array.size].reshape(array.shape).astype(array.dtype)
            at += array.size
        else:
            own = update.plain.get(name)
            if own is None or own.dtype != array.dtype or own.shape != array.shape:
                raise WireError(
                    f"the array {name} of dtype {array.dtype} and shape {array.shape} is missing, or another"
                )
            arrays[name] = own
    return arrays


def _flat(arrays: Arrays) -> np.ndarray:
    """All floating-point arrays as one vector: float64 where one of them is, else float32."""
    own = [array for array in arrays.values() if str(array.dtype) in _FLOATS]
    wide = np.float64 if any(array.dtype == np.float64 for array in own) else np.float32
    return np.concatenate([array.reshape(-1).astype(wide) for array in own] or [np.empty(0, wide)])


def _first_difference(one: Layout, other: Layout) -> str:
    missing = ("nothing more", "", ())
    for i in range(max(len(one), len(other))):
        a, b = (layout[i] if i < len(layout) else missing for layout in (one, other))
        if a != b:
            return f"{a} became {b}"
    return "nothing"
