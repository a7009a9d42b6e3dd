"""Specs to objects, and what there is to choose from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from telegrad.spec import build, registered

if TYPE_CHECKING:
    from telegrad.compressors.base import Compressor
    from telegrad.methods.base import Method

__all__ = ["Entry", "catalogue", "compressor", "method"]


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue: kind, name, an example spec, where it comes from, and what it does."""

    kind: str
    name: str
    example: str
    source: str
    summary: str


def compressor(spec: str | Compressor) -> Compressor:
    """The compressor that `spec` describes, e.g. `compressor("mlmc(stopk(s=0.01))")`. Raises `SpecError`."""
    return build(spec, "compressor")


def method(spec: str | Method) -> Method:
    """The method that `spec` describes, e.g. `method("ef21(topk(k=0.01))")`. Raises `SpecError`."""
    return build(spec, "method")


def catalogue() -> list[Entry]:
    """Every registered compressor, ladder, method, topology and workload with an example spec."""
    return [
        Entry(kind, name, cls.example, cls.source, (cls.__doc__ or "").strip().splitlines()[0])
        for kind in ("compressor", "ladder", "method", "topology", "workload")
        for name, cls in registered(kind).items()
    ]
