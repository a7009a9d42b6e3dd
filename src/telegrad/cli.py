"""The command line: `telegrad compare`, `run`, `report`, `variance`, `bench`, `list` and `cite`; what predicts is in
`telegrad.cli_theory`.

What a command needs is imported inside it, so that `telegrad --help` waits for nothing but torch.
"""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from telegrad.cli_theory import add_to as add_theory
from telegrad.errors import TelegradError, TelegradWarning
from telegrad.lab.spelling import spell_out

if TYPE_CHECKING:
    from rich.console import Console

    from telegrad.lab.config import Experiment

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """Makes of telegrad's errors one message and exit code 2; any other exception is a fault of ours and stays loud."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TelegradError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except ModuleNotFoundError as error:
            if (error.name or "telegrad").partition(".")[0] == "telegrad":
                raise
            typer.echo(f"error: this needs {error.name}: pip install 'telegrad[lab]'", err=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Gradients as telegrams: compare what gradient compression costs and what it buys.",
)


def main() -> None:
    """The entry point `telegrad`."""
    spell_out()
    warnings.showwarning = _show_warning
    app(prog_name="telegrad")


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Where in our source a warning arose is of no use to who reads it here.
    name = "warning" if issubclass(category, TelegradWarning) else category.__name__
    typer.echo(f"{name}: {message}", err=True)


def _option(text: str, **more: Any) -> Any:
    return typer.Option(help=text, show_default=False, **more)


Data = Annotated[str | None, _option("The folder of the workload's data, where it needs one")]
Out = Annotated[Path | None, _option("The run directory [default: runs/<workload>-<hash of the configuration>]")]
Threads = Annotated[int | None, _option("Threads that torch may use [default: torch's own choice]", min=1)]

Distributed = Annotated[
    bool,
    typer.Option(
        "--distributed",
        help="Every process of torchrun is a worker: torchrun --nproc-per-node=4 -m telegrad compare --distributed",
    ),
]


@app.command()
def compare(
    workload: Annotated[str | None, _option("The workload's spec [default: digits]")] = None,
    method: Annotated[
        list[str] | None, _option("A method's spec; may be repeated [default: six methods]", metavar="SPEC")
    ] = None,
    lr: Annotated[
        list[float] | None, _option("A learning rate; may be repeated [default: a grid]", metavar="RATE")
    ] = None,
    workers: Annotated[int | None, _option("Workers [default: 8]")] = None,
    steps: Annotated[int | None, _option("Steps of a run")] = None,
    batch_size: Annotated[int | None, _option("Examples a worker and step")] = None,
    seeds: Annotated[int | None, _option("Number of seeds")] = None,
    optimizer: Annotated[str | None, _option("The server's: sgd or adamw [default: sgd]")] = None,
    momentum: Annotated[float | None, _option("Its momentum [default: 0]")] = None,
    weight_decay: Annotated[float | None, _option("Its weight decay [default: 0]")] = None,
    schedule: Annotated[
        str | None, _option("Of the learning rate: constant, linear, cosine [default: constant]")
    ] = None,
    warmup_steps: Annotated[int | None, _option("Steps of linear warm-up [default: 0]")] = None,
    dirichlet: Annotated[
        float | None, _option("Concentration of a worker's classes; small: unlike, 0: sorted [default: alike]")
    ] = None,
    topology: Annotated[
        str | None, _option("How messages travel: server, allgather, two_phase, hierarchical(node=2) [default: server]")
    ] = None,
    granularity: Annotated[
        str | None, _option("What one call compresses: the model, a bucket, or each tensor [default: model]")
    ] = None,
    downlink: Annotated[
        str | None, _option("The compressor of what servers send [default: identity; of two_phase: the method's own]")
    ] = None,
    gradients: Annotated[
        str | None, _option("Workers' gradients at once (vmap) or in turn (loop) [default: vmap]")
    ] = None,
    chunk: Annotated[int | None, _option("Workers at once under vmap, to save memory [default: all]")] = None,
    evaluate_every: Annotated[int | None, _option("Steps between evaluations")] = None,
    data: Data = None,
    target: Annotated[
        float | None, _option("The metric that counts as trained [default: by the uncompressed run]")
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
    _perform(config.parse(values, "the options"), out, threads, distributed)


@app.command()
def run(
    configuration: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml|FOLDER", help="An experiment, or a folder of experiments")
    ],
    data: Data = None,
    out: Annotated[
        Path | None, _option("The run directory [default: runs/<workload>-<hash>; of a folder runs/<folder>/<file>]")
    ] = None,
    budget: Annotated[
        str | None, _option("Of a folder: no run begins that would end later than this, as 60m or 2h [default: all]")
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
        _run_folder(configuration, data, out, budget, threads)
        return
    if budget is not None:
        raise ConfigError(f"--budget goes with a folder of experiments, and {configuration} is not a folder")
    experiment = config.load(configuration)
    _perform(experiment if data is None else experiment.model_copy(update={"data": data}), out, threads, distributed)


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
        Path | None, _option("Rebuild the marked tables, and the plots, of the Markdown pages in this folder instead")
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
        _show(write_report(run_directory), path)


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


@app.command()
def variance(
    spec: Annotated[list[str] | None, _option("A compressor's spec; may be repeated [default: a catalogue]")] = None,
    source: Annotated[
        Path | None, typer.Option("--input", help="A .npy, .safetensors, .pt or .pth file", show_default=False)
    ] = None,
    tensor: Annotated[str | None, _option("Which tensor of the file [default: all, joined]")] = None,
    distribution: Annotated[
        str, typer.Option(help="Without --input: gauss, laplace, t3, lognormal or expdecay")
    ] = "gauss",
    size: Annotated[int, typer.Option(help="Entries of that vector", min=1)] = 100_000,
    repeats: Annotated[int, typer.Option(help="Messages a random compressor", min=2)] = 20,
    seed: Annotated[int, typer.Option(help="Decides every draw")] = 0,
    plot: Annotated[Path | None, _option("Draw omega against bits into this PNG")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here", show_default=False)] = None,
) -> None:
    """Measure error and bits of compressors on a tensor, from messages really packed."""
    import json

    from telegrad.lab import variance as measuring
    from telegrad.lab.tables import variance_table
    from telegrad.lab.vectors import load_tensor, quantile_vector
    from telegrad.random import Key

    key = Key(seed)
    x = quantile_vector(distribution, size, key) if source is None else load_tensor(source, tensor)
    name = f"{distribution}, {size} entries" if source is None else f"{source.name}, {x.numel()} entries"
    found = measuring.measure_all(spec or measuring.DEFAULT_SPECS, x, key, repeats)
    _console().print(variance_table(found, name))
    if plot is not None:
        measuring.plot(found, name, plot)
        typer.echo(f"plot:   {plot}")
    if json_file is not None:
        json_file.write_text(json.dumps(measuring.as_json(found, name, x.numel()), indent=2) + "\n", encoding="utf-8")
        typer.echo(f"json:   {json_file}")


@app.command()
def bench(
    part: Annotated[str, typer.Argument(metavar="encode|decode|step", help="What is timed")],
    spec: Annotated[
        list[str] | None,
        _option(
            "A compressor's spec, for `step` a method's; may be repeated; all: every example of `list` [default: a few]"
        ),
    ] = None,
    size: Annotated[
        list[float] | None, _option("Entries, 1e4 to 1e8; may be repeated [default: 1e4, 1e6, 25e6]", min=1)
    ] = None,
    vector: Annotated[list[str] | None, _option("gauss or heavy; may be repeated [default: both]")] = None,
    repeats: Annotated[int, typer.Option(help="Timings of each", min=1)] = 7,
    peers: Annotated[bool, typer.Option(help="Time what torch offers too")] = True,
    workers: Annotated[int, typer.Option(help="Of `step`", min=1)] = 32,
    device: Annotated[str, typer.Option(help="Where the tensors of encode and decode lie: cpu or cuda")] = "cpu",
    threads: Threads = None,
    plot: Annotated[Path | None, _option("Draw the times into this PNG")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here", show_default=False)] = None,
) -> None:
    """Time encoding, decoding or a simulated training step, beside peers, as ratios to a copy of the tensor."""
    import json

    import torch

    from telegrad.errors import ConfigError
    from telegrad.lab import bench as timing
    from telegrad.lab.tables import share_table, timing_table

    if threads is not None:
        torch.set_num_threads(threads)
    console = _console()
    if part == "step":
        methods = spec or [f"sgd({compressor})" for compressor in ("identity", *timing.STEP_SPECS)]
        rows: Any = timing.bench_step(methods, workers, 20, min(repeats, 3))
        console.print(share_table(rows))
    elif part in ("encode", "decode"):
        sizes = [round(entries) for entries in size or (1e4, 1e6, 25e6)]
        chosen = list(vector or timing.VECTORS)
        specs = timing.whole_catalogue() if spec == ["all"] else spec or timing.DEFAULT_SPECS
        which: Any = part
        rows = timing.bench_codec(
            which, specs, sizes, chosen, repeats, peers, lambda text: typer.echo(text, err=True), device
        )
        for table in timing_table(rows):
            console.print(table)
    else:
        raise ConfigError(f"bench {part}: encode, decode or step is allowed")
    if plot is not None:
        from telegrad.lab.speed_plot import speed_plot

        speed_plot(rows, plot)
        typer.echo(f"plot:   {plot}")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(timing.as_json(part, rows, device), indent=1) + "\n", encoding="utf-8")
        typer.echo(f"json:   {json_file}")


@app.command("list")
def list_() -> None:
    """List all compressors, ladders, methods and workloads that a spec can name."""
    from telegrad.lab.catalogue import readable_catalogue

    console = _console()
    for part in readable_catalogue():
        console.print(part, highlight=False)


@app.command()
def warmup() -> None:
    """Compile the loops that compressors and methods use, ahead of a job's first step, and say how long it took."""
    from telegrad.lab.warming import warm_up

    done = warm_up(lambda text: typer.echo(text, err=True))
    typer.echo(f"{len(done.compiled)} loops compiled, {done.seconds:.1f} seconds in all")


@app.command()
def cite(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Of a compressor, method, ladder, topology or workload")],
) -> None:
    """Print the references of what a spec uses, as BibTeX."""
    from telegrad.citation import citation

    typer.echo(citation(spec), nl=False)


def _perform(experiment: Experiment, out: Path | None, threads: int | None, distributed: bool) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if not distributed:
        _keep(experiment, out, None)
        return
    from telegrad.lab.distributed import end_process, group_of_processes, leading

    with group_of_processes() as (_, workers):
        experiment = experiment.model_copy(update={"workers": workers, "gradients": "loop"})
        with leading(experiment.workload, experiment.data) as train:
            if train is not None:
                _keep(experiment, out, train)
    end_process()


def _keep(experiment: Experiment, out: Path | None, train: Callable[..., Any] | None) -> None:
    """Run what is not yet on record in a run directory, and show its summary."""
    from rich.console import Console

    from telegrad.lab.config import digest
    from telegrad.lab.progress import watch_on
    from telegrad.lab.records import RunDirectory
    from telegrad.lab.report import write_report
    from telegrad.lab.runner import run_experiment
    from telegrad.lab.watching import Following

    name = re.sub(r"\W+", "-", experiment.workload.partition("(")[0])
    path = out or Path("runs") / f"{name}-{digest(experiment)}"
    directory = RunDirectory.open(path, experiment)
    try:
        with watch_on(Console(stderr=True)) as watch, Following(watch, directory.path) as following:
            run_experiment(experiment, directory, following, train)
        summary = write_report(directory)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; finished runs are kept in {path}; the same command resumes", err=True)
        raise typer.Exit(130) from None
    _show(summary, path)
    if all(row["diverged"] for row in summary["results"]):
        typer.echo("error: every method diverged at every learning rate; try smaller ones (--lr, or `lrs:`)", err=True)
        raise typer.Exit(1)


def _run_folder(folder: Path, data: str | None, out: Path | None, budget: str | None, threads: int | None) -> None:
    """Do what is missing of the experiments in a folder, within the budget."""
    import torch
    from rich.console import Console

    from telegrad.lab.plan import left
    from telegrad.lab.progress import watch_on
    from telegrad.lab.runner import jobs_below, run_queue, seconds_of

    if threads is not None:
        torch.set_num_threads(threads)
    allowed = None if budget is None else seconds_of(budget)
    path = out or Path("runs") / folder.resolve().name
    jobs = jobs_below(folder, data, path)
    try:
        with watch_on(Console(stderr=True)) as watch:
            run_queue(jobs, watch, budget=allowed)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; finished runs are kept in {path}; the same command resumes", err=True)
        raise typer.Exit(130) from None
    for job in jobs:
        missing = left(job.experiment, job.directory.runs).runs
        typer.echo(f"{job.directory.path}: {len(job.directory.runs)} runs finished, {missing} to do")


def _console() -> Console:
    from rich.console import Console

    # A file or a pipe has no width of its own.
    return Console() if sys.stdout.isatty() else Console(width=132)


def _show(summary: dict[str, Any], path: Path) -> None:
    from telegrad.lab.tables import footnotes, metric, summary_table

    console = _console()
    console.print(summary_table(summary, console.width))
    goal = metric(summary["target"], summary["metric"])
    lines = [f"target: {goal} ({summary['target_rule']})", *footnotes(summary)]
    lines += [
        f"report: {path / 'report.html'}",
        *(f"plot:   {image}" for image in sorted(path.glob("metric-vs-*.png"))),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


add_theory(app, lambda: _console())


if __name__ == "__main__":
    main()
