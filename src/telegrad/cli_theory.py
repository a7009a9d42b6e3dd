"""The commands that predict: `telegrad theory`.

What a command needs is imported inside it, as in `telegrad.cli`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

__all__ = ["add_to"]

Json = Annotated[Path | None, typer.Option("--json", help="Write the figures here", show_default=False)]


def add_to(app: typer.Typer, console: Callable[[], Console]) -> None:
    """Add the commands to `app`; `console` makes what they print on."""

    @app.command()
    def theory(
        method: Annotated[
            str | None,
            typer.Argument(
                metavar="METHOD", help="A name such as diana, or a spec such as sgd(randk(k=0.01)) [default: a list]"
            ),
        ] = None,
        constants: Annotated[
            list[str] | None,
            typer.Argument(metavar="NAME=NUMBER", help="What is known, for example L=2 omega=9 workers=8"),
        ] = None,
        json_file: Json = None,
    ) -> None:
        """Print step sizes and convergence bounds of a method for given constants, the papers' and the corrected ones.

        Constants that differ between workers only are taken to be equal where they are not given.
        """
        from telegrad.lab import theory_table as tables
        from telegrad.theory.constants import CONSTANTS, parse_constants

        out = console()
        if method is None:
            out.print(tables.methods_table())
            out.print(tables.constants_table(list(CONSTANTS)))
            return
        name, known = tables.method_and_constants(method, parse_constants(constants or []))
        found = tables.lines(name, known)
        out.print(tables.theory_table(name, found))
        used = {constant for line in found for constant in line.statement.wants}
        out.print(tables.constants_table([constant for constant in CONSTANTS if constant in used]))
        write_json(json_file, tables.as_json(name, known, found))


def write_json(file: Path | None, figures: Any) -> None:
    """Write the figures, where a file is given, and say where."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        typer.echo(f"json:   {file}")
