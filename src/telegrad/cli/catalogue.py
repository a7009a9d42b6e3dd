"""The commands that tell what there is: `telegrad list` and `cite`."""

from __future__ import annotations

from typing import Annotated

import typer

from telegrad.cli.application import app, console

__all__: list[str] = []


@app.command("list")
def list_() -> None:
    """List all compressors, ladders, methods and workloads that a spec can name."""
    from telegrad.lab.catalogue import readable_catalogue

    out = console()
    for part in readable_catalogue():
        out.print(part, highlight=False)


@app.command()
def cite(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Of a compressor, method, ladder, topology or workload")],
) -> None:
    """Print the references of what a spec uses, as BibTeX."""
    from telegrad.citation import citation

    typer.echo(citation(spec), nl=False)
