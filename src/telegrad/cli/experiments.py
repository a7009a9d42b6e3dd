"""The commands that run experiments: `telegrad compare`, `run`, `merge`, `report` and `watch`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from telegrad.cli.application import Data, Threads, app, option
from telegrad.cli.performing import perform, perform_folder, show

__all__: list[str] = []

Out = Annotated[Path | None, option("The run directory [default: runs/<workload>-<hash of the configuration>]")]

Distributed = Annotated[
    bool,
    typer.Option(
        "--distributed",
        help="Every process of torchrun is a worker: torchrun --nproc-per-node=4 -m telegrad compare --distributed",
    ),
]


@app.command()
def compare(
    workload: Annotated[str | None, option("The workload's spec [default: digits]")] = None,
    method: Annotated[
        list[str] | None, option("A method's spec; may be repeated [default: six methods]", metavar="SPEC")
    ] = None,
    lr: Annotated[
        list[float] | None, option("A learning rate; may be repeated [default: a grid]", metavar="RATE")
    ] = None,
    workers: Annotated[int | None, option("Workers [default: 8]")] = None,
    steps: Annotated[int | None, option("Steps of a run")] = None,
    batch_size: Annotated[int | None, option("Examples a worker and step")] = None,
    seeds: Annotated[int | None, option("Number of seeds")] = None,
    optimizer: Annotated[str | None, option("The server's: sgd or adamw [default: sgd]")] = None,
    momentum: Annotated[float | None, option("Its momentum [default: 0]")] = None,
    weight_decay: Annotated[float | None, option("Its weight decay [default: 0]")] = None,
    schedule: Annotated[
        str | None, option("Of the learning rate: constant, linear, cosine [default: constant]")
    ] = None,
    warmup_steps: Annotated[int | None, option("Steps of linear warm-up [default: 0]")] = None,
    dirichlet: Annotated[
        float | None, option("Concentration of a worker's classes; small: unlike, 0: sorted [default: alike]")
    ] = None,
    topology: Annotated[
        str | None, option("How messages travel: server, allgather, two_phase, hierarchical(node=2) [default: server]")
    ] = None,
    granularity: Annotated[
        str | None, option("What one call compresses: the model, a bucket, or each tensor [default: model]")
    ] = None,
    downlink: Annotated[
        str | None, option("The compressor of what servers send [default: identity; of two_phase: the method's own]")
    ] = None,
    gradients: Annotated[
        str | None, option("Workers' gradients at once (vmap) or in turn (loop) [default: vmap]")
    ] = None,
    chunk: Annotated[int | None, option("Workers at once under vmap, to save memory [default: all]")] = None,
    evaluate_every: Annotated[int | None, option("Steps between evaluations")] = None,
    data: Data = None,
    target: Annotated[
        float | None, option("The metric that counts as trained [default: by the uncompressed run]")
    ] = None,
    distributed: Distributed = False,
    threads: Threads = None,
    out: Out = None,
) -> None:
    """Compare methods on a workload: a table, plots and report.html. The same command resumes what was interrupted.

    Without options: six methods on handwritten digits, in about three minutes.
    """
    from telegrad.lab import config

    # Methods of the user's own are run as `telegrad.simulate` runs them, not with the packaged comparison's setting.
    values = {} if method else config.default_yaml()
    given = {
        "workload": workload,
        "methods": method,
        "lrs": lr,
        "workers": workers,
        "steps": steps,
        "batch_size": batch_size,
        "seeds": seeds,
        "optimizer": optimizer,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "warmup_steps": warmup_steps,
        "dirichlet": dirichlet,
        "topology": topology,
        "granularity": granularity,
        "downlink": downlink,
        "gradients": gradients,
        "chunk": chunk,
        "evaluate_every": evaluate_every,
        "data": data,
        "target": target,
    }
    if lr and not method:  # the grid asked for also replaces those that the default methods have of their own
        values["methods"] = [entry["spec"] for entry in values["methods"]]
    if steps or workload:
        values.pop("evaluate_every", None)
    values |= {name: value for name, value in given.items() if value is not None}
    perform(config.parse(values, "the options"), out, threads, distributed)


@app.command()
def run(
    configuration: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml|FOLDER", help="An experiment, or a folder of experiments")
    ],
    data: Data = None,
    out: Annotated[
        Path | None, option("The run directory [default: runs/<workload>-<hash>; of a folder runs/<folder>/<file>]")
    ] = None,
    budget: Annotated[
        str | None, option("Of a folder: no run begins that would end later than this, as 60m or 2h [default: all]")
    ] = None,
    distributed: Distributed = False,
    threads: Threads = None,
) -> None:
    """Run a whole experiment, or a folder of them: methods, learning rates and seeds. The same command resumes it.

    Of a folder, the most informative runs that are missing go first: the search for learning rates, then a second seed
    of every method, then a third; lower `priority` first, where a seed waits as long as a priority higher by one.
    """
    from telegrad.errors import ConfigError
    from telegrad.lab import config

    if configuration.is_dir():
        if distributed:
            raise ConfigError(f"--distributed runs one experiment; name a file in {configuration}")
        perform_folder(configuration, data, out, budget, threads)
        return
    if budget is not None:
        raise ConfigError(f"--budget goes with a folder of experiments, and {configuration} is not a folder")
    experiment = config.load(configuration)
    perform(experiment if data is None else experiment.model_copy(update={"data": data}), out, threads, distributed)


@app.command()
def merge(
    source: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run directories, or folders of them")],
    out: Annotated[Path, typer.Option(help="Where the joined records go; what is there already is kept")],
) -> None:
    """Join the records of several machines: each experiment becomes its configuration and one compressed file."""
    from telegrad.lab.merge import merge as join

    for name, count in join(source, out).items():
        typer.echo(f"{out / name}: {count} runs")


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory, or a folder of them")],
    pages: Annotated[
        Path | None, option("Rebuild the marked tables, and the plots, of the Markdown pages in this folder instead")
    ] = None,
) -> None:
    """Rebuild the records, the report and the plots of a run directory, or pages of results, from the finished runs.

    Nothing is trained. A page marks with <!-- results: NAME --> and <!-- end --> where the results of NAME go.
    """
    from telegrad.lab.merge import run_directories
    from telegrad.lab.records import RunDirectory
    from telegrad.lab.report import write_report
    from telegrad.lab.results import write_pages

    if pages is not None:
        for file in write_pages(directory, pages):
            typer.echo(str(file))
        return
    is_folder = not (directory / "config.yaml").exists() and any(directory.glob("*/config.yaml"))
    for path in run_directories(directory).values() if is_folder else [directory]:
        run_directory = RunDirectory.load(path)
        show(write_report(run_directory), path)


@app.command()
def watch(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The run directory of an experiment that runs")],
    host: Annotated[str, typer.Option(help="The address to listen on; the default is reachable from here only")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="The port to listen on", min=0, max=65535)] = 8050,
) -> None:
    """Follow a running experiment on a local page: its report, renewed as runs finish, and the run under way."""
    from telegrad.lab.watching import server

    with server(directory, host, port) as running:
        typer.echo(f"http://{host}:{running.server_address[1]}/ follows {directory}; stop with Ctrl-C")
        with contextlib.suppress(KeyboardInterrupt):
            running.serve_forever()
