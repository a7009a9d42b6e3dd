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
    """The compressor that a spec describes.

    Args:
        spec: a name with arguments, such as "mlmc(stopk(s=0.01))"; a compressor is returned as it is.

    Returns:
        A frozen object: `encode(x, key)` compresses a tensor, `omega(d)` and `alpha(d)` say how much is lost.

    Raises:
        SpecError: a name or an argument is wrong, with the nearest valid name and an example.

    Example:
        >>> print(tg.compressor("mlmc(stopk(s=0.01, values=fp32))"))
        mlmc(stopk(s=0.01))
    """
    return build(spec, "compressor")


def method(spec: str | Method) -> Method:
    """The method that a spec describes.

    Args:
        spec: a name with arguments, such as "ef21(topk(k=0.01))"; a compressor C stands for sgd(C); a method is
            returned as it is.

    Returns:
        A frozen object for `tg.simulate`, `tg.ddp.register` and `tg.outer.register`, where the method's kind fits.

    Raises:
        SpecError: a name or an argument is wrong, or the compressor does not fit the method, with the reason.

    Example:
        >>> print(tg.method("ef21(topk(k=0.01))"))
        ef21(topk(k=0.01))
        >>> print(tg.method("randk(k=5)"))
        sgd(randk(k=5))
    """
    return build(spec, "method")


def catalogue() -> list[Entry]:
    """Every registered compressor, ladder, method, topology and workload, with an example spec.

    Returns:
        Entries of `kind`, `name`, `example`, `source` and `summary`, kind by kind, each in alphabetical order.

    Example:
        >>> [entry.name for entry in tg.catalogue() if entry.kind == "topology"]
        ['allgather', 'hierarchical', 'server', 'two_phase']
    """
    return [
        Entry(kind, name, cls.example, cls.source, (cls.__doc__ or "").strip().splitlines()[0])
        for kind in ("compressor", "ladder", "method", "topology", "workload")
        for name, cls in registered(kind).items()
    ]
