"""The catalogue of specs, for reading."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from telegrad.catalogue import Entry, catalogue
from telegrad.spec import build

__all__ = ["readable_catalogue"]

_KINDS = {
    "compressor": "Compressors: what a worker makes of its gradient",
    "ladder": "Ladders: levels of rising fidelity, for mlmc(...)",
    "method": "Methods: what workers send and what the server makes of it",
    "topology": "Topologies: how messages travel",
    "workload": "Workloads: a model, its data and its metric",
}


def readable_catalogue() -> Iterator[RenderableType]:
    """A heading a kind; below it each entry's example spec, what it is and where it comes from."""
    entries = catalogue()
    for kind, title in _KINDS.items():
        yield Text(f"{title}\n", style="bold underline")
        for entry in (entry for entry in entries if entry.kind == kind):
            yield Text.assemble((entry.name, "bold"), f"  {_bias(entry)}for example ", (entry.example, "cyan"))
            yield Padding(Text(entry.summary), (0, 0, 0, 4))
            yield Padding(Text(entry.source, style="dim"), (0, 0, 1, 4))


def _bias(entry: Entry) -> str:
    if entry.kind != "compressor":
        return ""
    return "unbiased, " if build(entry.example, "compressor").unbiased else "biased, "
