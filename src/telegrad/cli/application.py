"""The application that commands are added to, and what they share: options, the console, files of figures."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from telegrad.errors import TelegradError, TelegradWarning
from telegrad.lab.spelling import spell_out

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Data", "JsonFile", "Threads", "app", "console", "main", "option", "write_json"]


class _Commands(TyperGroup):
    """Makes of telegrad's errors, and of files that cannot be read or written, one message and exit code 2; any other
    exception is a fault of ours and stays loud.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TelegradError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except OSError as error:
            if error.filename is None:  # no file that somebody named
                raise
            typer.echo(f"error: {error.filename}: {error.strerror}; a path that can be used is wanted", err=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _before(
    load: Annotated[
        list[str] | None,
        option("Import this module of yours first, so that specs find what it registers; may be given several times"),
    ] = None,
) -> None:
    """Gradient compression: compare what it costs and what it buys, and ask what fits your link."""
    if load:
        from telegrad.workloads.imported import module_of

        for name in load:
            module_of(name, f"--load {name}")


def main() -> None:
    """The entry point `telegrad`."""
    spell_out()
    warnings.showwarning = _show_warning
    app(prog_name="telegrad")


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Where in our source a warning arose is of no use to who reads it here.
    name = "warning" if issubclass(category, TelegradWarning) else category.__name__
    typer.echo(f"{name}: {message}", err=True)


def option(text: str, **more: Any) -> Any:
    """An option whose default its text tells."""
    return typer.Option(help=text, show_default=False, **more)


Data = Annotated[str | None, option("The folder of the workload's data, where it needs one")]
Threads = Annotated[int | None, option("Threads that torch may use [default: torch's own choice]", min=1)]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the figures here", dir_okay=False, show_default=False)
]


def console() -> Console:
    """What tables are printed on."""
    from rich.console import Console

    # A file or a pipe has no width of its own.
    return Console() if sys.stdout.isatty() else Console(width=132)


def write_json(file: Path | None, figures: Any) -> None:
    """Write the figures, where a file is given, and say where."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        typer.echo(f"json:   {file}")
