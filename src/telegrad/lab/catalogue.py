"""The catalogue of specs as tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

# Reading a configuration needs every name registered; so does this.
from telegrad.lab import config  # noqa: F401
from telegrad.spec import Registered, build, registered

__all__ = ["catalogue_tables"]

_KINDS = {
    "compressor": "Compressors: what a worker makes of its gradient",
    "ladder": "Ladders: levels of rising fidelity, for mlmc(...)",
    "method": "Methods: what workers send and what the server makes of it",
    "workload": "Workloads: a model, its data and its metric",
}


def catalogue_tables() -> Iterator[Table]:
    """A table a kind: name, what it is, an example spec, the source."""
    for kind, title in _KINDS.items():
        table = Table(title=title, title_justify="left", title_style="bold", expand=True, pad_edge=False)
        for heading, ratio in (("name", 2), ("what it is", 5), ("example", 4), ("source", 3)):
            table.add_column(heading, ratio=ratio, overflow="fold")
        for name, cls in registered(kind).items():
            table.add_row(*(Text(text) for text in (name, _what(cls), cls.example, cls.source)))
        yield table


def _what(cls: type[Registered]) -> str:
    """The first sentence of the docstring; for a compressor also whether it is unbiased."""
    sentence = " ".join((cls.__doc__ or "").split()).partition(". ")[0].rstrip(".")
    if cls.kind != "compressor":
        return sentence
    unbiased = getattr(build(cls.example, "compressor"), "unbiased", None)
    return f"{sentence} ({'unbiased' if unbiased else 'biased'})" if unbiased is not None else sentence
